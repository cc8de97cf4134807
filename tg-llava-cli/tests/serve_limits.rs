//! What the server does with too much, with strangers, with clients that go away, and at its end.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod served;

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use serde_json::{Value, json};
use served::{Server, picture, picture_file, question};

/// A conversation that is answered in two tokens.
fn short() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
}

/// A conversation whose answers, of a model with random weights, are as long as the context allows.
fn long() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "n": 8, "stream": true, "temperature": 0})
}

/// A server with that model.
fn random(arguments: &[&str]) -> Server {
    let model = common::fixture("models/vicuna-tiny");
    Server::start(&[&["--model", model.to_str().unwrap()], arguments].concat())
}

/// Reads an answer up to its first piece of text.
fn first_piece(stream: &TcpStream) -> BufReader<&TcpStream> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"content\":\"") || line.contains("\"role\"") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the answer ended");
    }
    reader
}

fn terminate(server: &Server) {
    let pid = server.running.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

#[test]
fn a_full_server_tells_when_to_come_back() {
    let server = Server::start(&["--max-running", "1", "--queue", "1"]);
    // Requests whose bodies never come. One that finds the server full for a moment is refused, so there may have to be more than two.
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n";
    let hold = || {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let held = RefCell::new(vec![hold()]);
    let headers = [("content-type", "application/json")];
    let ask = || server.exchange("POST", "/v1/chat/completions", &headers, short().to_string().as_bytes());
    server.until("it is full", || {
        held.borrow_mut().push(hold());
        ask().0 == 429
    });
    let (_, head, body) = ask();
    assert!(head.contains("retry-after: "), "{head}");
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(error["error"]["code"], "queue_full");
    // A refusal leaves the connection open for the next try.
    let body = short().to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut kept = BufReader::new(TcpStream::connect(&server.address).unwrap());
    for _ in 0..2 {
        kept.get_mut().write_all(request.as_bytes()).unwrap();
        // The body comes later than the head is read.
        std::thread::sleep(std::time::Duration::from_millis(50));
        kept.get_mut().write_all(body.as_bytes()).unwrap();
        let (mut line, mut len) = (String::new(), 0);
        kept.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 429"), "{line}");
        while line.trim() != "" {
            line.clear();
            kept.read_line(&mut line).unwrap();
            len = line.strip_prefix("content-length: ").map_or(len, |text| text.trim().parse().unwrap());
        }
        kept.read_exact(&mut vec![0; len]).unwrap();
    }
    assert_eq!(server.get("/health").0, 200);
    drop(held);
    server.until("there is room again", || ask().0 == 200);
}

#[test]
fn a_client_that_goes_away_frees_its_rows() {
    let server = random(&[]);
    let stream = server.begin(&long());
    drop(first_piece(&stream));
    drop(stream);
    server.until("nothing runs", || server.metric("tg_llava_requests_running") == 0.0);
    // Eight answers to the end of the context have many more.
    assert!(server.metric("tg_llava_generated_tokens_total") < 8.0 * 400.0);

    // One that waits for a whole answer, and one that waits in the queue.
    let mut whole = long();
    whole["stream"] = false.into();
    let streams = [server.begin(&whole), server.begin(&whole), server.begin(&whole)];
    server.until("one waits", || server.metric("tg_llava_requests_waiting") > 0.0);
    drop(streams);
    server.until("nobody runs or waits", || {
        server.metric("tg_llava_requests_running") + server.metric("tg_llava_requests_waiting") == 0.0
    });
    assert_eq!(server.post(&short()).0, 200);
}

#[test]
fn an_end_lets_answers_finish() {
    let mut server = random(&[]);
    let stream = server.begin(&long());
    let mut reader = first_piece(&stream);
    terminate(&server);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]") && !rest.contains("\"error\""), "{}", &rest[rest.len() - 300..]);
    assert_eq!(server.running.wait().code(), Some(0));
    assert!(TcpStream::connect(&server.address).is_err());
}

#[test]
fn an_end_waits_no_longer_than_it_may() {
    let mut server = random(&["--grace", "0"]);
    let stream = server.begin(&long());
    let mut reader = first_piece(&stream);
    terminate(&server);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"code\":\"shutting_down\"") && !rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.running.wait().code(), Some(0));
}

#[test]
fn a_request_has_a_time_limit() {
    let server = Server::start(&["--request-timeout", "0"]);
    let (status, error) = server.post(&short());
    assert_eq!((status, &error["error"]["code"]), (503, &json!("timeout")));
}

#[test]
fn too_large_a_body_is_refused() {
    let server = Server::start(&["--max-body-bytes", "1000"]);
    let (status, error) = server.post(&json!({"messages": question(&"what? ".repeat(300))}));
    assert_eq!((status, &error["error"]["code"]), (413, &json!("body_too_large")));
    assert_eq!(server.post(&short()).0, 200);
}

#[test]
fn keys_open_everything_but_health_and_page() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\nsecond\n").unwrap();
    let server = Server::start(&["--api-key", "third", "--api-key-file", file.path().to_str().unwrap()]);
    let get = |path: &str, headers: &[(&str, &str)]| server.exchange("GET", path, headers, b"").0;
    for path in ["/health", "/", "/openapi.json"] {
        assert_eq!(get(path, &[]), 200, "{path}");
    }
    for path in ["/v1/models", "/metrics", "/nothing"] {
        assert_eq!(get(path, &[]), 401, "{path}");
        assert_eq!(get(path, &[("authorization", "Bearer wrong")]), 401, "{path}");
        assert_eq!(get(path, &[("authorization", "second")]), 401, "{path}");
    }
    for key in ["first", "second", "third"] {
        assert_eq!(get("/v1/models", &[("authorization", &format!("Bearer {key}"))]), 200, "{key}");
    }
    let (status, head, body) = server.exchange("POST", "/v1/chat/completions", &[], b"{}");
    let error: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &error["error"]["code"]), (401, &json!("invalid_api_key")));
    assert!(head.contains("x-request-id: "), "{head}");
}

#[test]
fn the_log_names_requests_and_keeps_secrets() {
    let mut server = Server::loading(&["--log-format", "json", "--api-key", "s3cret"], Stdio::piped());
    server.await_health();
    let headers = [
        ("content-type", "application/json"),
        ("authorization", "Bearer s3cret"),
        ("x-request-id", "my-request-1"),
    ];
    let body = json!({"messages": question("is there a circle?"), "max_tokens": 3}).to_string();
    let (status, head, _) = server.exchange("POST", "/v1/chat/completions", &headers, body.as_bytes());
    assert!(status == 200 && head.contains("x-request-id: my-request-1"), "{head}");
    terminate(&server);
    let mut log = String::new();
    server.running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of_request: Vec<&Value> =
        lines.iter().filter(|line| line["span"]["request_id"] == "my-request-1").collect();
    let messages: Vec<&str> = of_request.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["answered", "responded"]);
    assert_eq!(of_request[1]["status"], 200);
    assert!(!log.contains("s3cret") && !log.contains(&picture()[100..140]), "{log}");
}

#[test]
fn other_sites_ask_only_where_they_are_named() {
    let preflight = |server: &Server| {
        let headers = [("origin", "http://localhost:3000"), ("access-control-request-method", "POST")];
        server.exchange("OPTIONS", "/v1/chat/completions", &headers, b"")
    };
    let open = Server::start(&["--cors-origin", "http://localhost:3000", "--api-key", "k"]);
    let (status, head, _) = preflight(&open);
    assert!(status == 204 && head.contains("access-control-allow-origin: http://localhost:3000"), "{head}");
    assert!(head.contains("access-control-allow-methods: ") && head.contains("post"), "{head}");
    let (status, head, _) = preflight(&Server::start(&[]));
    assert!(status == 405 && !head.contains("access-control"), "{head}");
}

/// Serves the test's picture and redirections; returns the address without a slash at its end.
fn pictures() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let picture = std::fs::read(picture_file()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let answer = match request.split(' ').nth(1).unwrap_or_default() {
                "/picture" => [b"HTTP/1.1 200 OK\r\n\r\n", &picture[..]].concat(),
                "/moved" => b"HTTP/1.1 302 Found\r\nlocation: /picture\r\n\r\n".to_vec(),
                "/away" => b"HTTP/1.1 302 Found\r\nlocation: http://localhost:1/picture\r\n\r\n".to_vec(),
                "/circle" => b"HTTP/1.1 302 Found\r\nlocation: /circle\r\n\r\n".to_vec(),
                "/page" => b"HTTP/1.1 200 OK\r\n\r\n<html>no picture</html>".to_vec(),
                _ => b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
            };
            let _ = (&stream).write_all(&answer);
        }
    });
    address
}

#[test]
fn pictures_come_from_opened_places_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    std::fs::copy(picture_file(), folder.join("a.png")).unwrap();
    let web = pictures();
    let open = Server::start(&["--media-hosts", "127.0.0.1", "--media-path", folder.to_str().unwrap()]);
    let ask = |server: &Server, url: &str| {
        let image = json!({"type": "image_url", "image_url": {"url": url}});
        let text = json!({"type": "text", "text": "what shape is in the image?"});
        let messages = json!([{"role": "user", "content": [image, text]}]);
        let (status, answer) = server.post(&json!({"messages": messages, "temperature": 0, "max_tokens": 8}));
        match status {
            200 => answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned(),
            _ => format!("{status} {}", answer["error"]["code"].as_str().unwrap()),
        }
    };
    let file = format!("file://{}/a.png", folder.display());
    let expected = ask(&open, &picture());
    for url in [&format!("{web}/picture"), &format!("{web}/moved"), &file] {
        assert_eq!(&ask(&open, url), &expected, "{url}");
    }
    let outside = format!("file://{}", picture_file().canonicalize().unwrap().display());
    for path in ["/away", "/circle", "/page", "/none"] {
        assert_eq!(ask(&open, &format!("{web}{path}")), "400 invalid_image", "{path}");
    }
    assert_eq!(ask(&open, &outside), "400 invalid_image");
    let closed = Server::start(&[]);
    for url in [&format!("{web}/picture"), &file] {
        assert_eq!(ask(&closed, url), "400 invalid_image", "{url}");
    }
}

#[test]
fn what_cannot_be_served_is_told_at_once() {
    for (arguments, message) in [
        (&["--model", "nowhere"][..], "nowhere: no such folder"),
        (&["--media-path", "nowhere"], "--media-path nowhere"),
        (&["--api-key", ""], "--api-key is empty"),
        (&["--api-key-file", "nowhere"], "nowhere: "),
    ] {
        let output = common::program().arg("serve").args(["--port", "0"]).args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(message), "{arguments:?}: {stderr}");
    }
    // A damaged checkpoint ends a server that listens already.
    let model = common::copy_of("vicuna-tiny");
    std::fs::write(model.path().join("model.safetensors"), b"no weights").unwrap();
    let output =
        common::program().args(["serve", "--port", "0", "--model"]).arg(model.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}
