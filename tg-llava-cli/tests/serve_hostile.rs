//! What the server does with clients that mean it harm, or know no better: it refuses them, and others are answered as ever.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
mod served;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use served::Server;

const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

/// A conversation that is answered in two tokens.
fn short() -> Value {
    json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
}

/// One that is answered as long as the context allows, with all that can be told about each token.
fn endless() -> Value {
    json!({
        "messages": [{"role": "user", "content": "hi"}], "n": 8, "stream": true, "temperature": 0, "logprobs": true,
        "top_logprobs": 20,
    })
}

/// A server with a model of random weights, which goes on until its context is full.
fn random(arguments: &[&str]) -> Server {
    let model = common::fixture("models/vicuna-tiny");
    Server::start(&[&["--model", model.to_str().unwrap()], arguments].concat())
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends bytes as they are, and gives all that comes back.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = connect(server);
    // A server may refuse before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A picture in a request that is about nothing else.
fn about(kind: &str, bytes: &[u8]) -> Value {
    let url = format!("data:image/{kind};base64,{}", STANDARD.encode(bytes));
    json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], "max_tokens": 1})
}

#[test]
fn connections_that_are_kept_still_make_room() {
    let server = Server::start(&["--max-connections", "2", "--client-timeout", "1"]);
    let idle = [connect(&server), connect(&server)];
    (&idle[0]).write_all(b"GET /health HTTP/1.1\r\nho").unwrap();
    // It waits until one of the two is closed.
    assert_eq!(server.get("/health").0, 200);
    for mut stream in idle {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
}

#[test]
fn a_body_that_does_not_come_makes_room() {
    let server = Server::start(&["--max-running", "1", "--queue", "0", "--client-timeout", "1"]);
    let answer = raw(&server, format!("{HEAD}content-length: 100\r\nconnection: close\r\n\r\n{{").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"code\":\"timeout\""), "{answer}");
    assert_eq!(server.post(&short()).0, 200);
    // The time of the whole request counts as well.
    let server = Server::start(&["--request-timeout", "1"]);
    let answer = raw(&server, format!("{HEAD}content-length: 100\r\nconnection: close\r\n\r\n{{").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"code\":\"timeout\""), "{answer}");
}

#[test]
fn an_answer_that_nobody_takes_makes_room() {
    let server = random(&["--max-running", "1", "--queue", "0", "--client-timeout", "1"]);
    // More than the system keeps for a connection.
    let stuck = server.begin(&endless());
    server.until("it is taken", || server.metric("tg_llava_requests_running") > 0.0);
    assert_eq!(server.post(&short()).0, 429);
    server.until("all is said", || server.metric("tg_llava_requests_running") == 0.0);
    server.until("there is room again", || server.post(&short()).0 == 200);
    drop(stuck);
}

#[test]
fn heads_that_are_too_long_are_refused() {
    let server = Server::start(&[]);
    let long = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(raw(&server, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many: String = (0..5000).map(|i| format!("x-{i}: y\r\n")).collect();
    assert!(
        raw(&server, format!("GET /health HTTP/1.1\r\n{many}\r\n").as_bytes()).starts_with("HTTP/1.1 431 ")
    );
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(1 << 20));
    let answer = raw(&server, path.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
    {
        raw(&server, garbage);
    }
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn a_half_closed_connection_frees_its_rows() {
    let server = random(&[]);
    let body = endless().to_string();
    let mut stream = connect(&server);
    stream.write_all(format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    server.until("nothing runs", || server.metric("tg_llava_requests_running") == 0.0);
    assert_eq!(server.post(&short()).0, 200);
}

#[test]
fn requests_one_behind_the_other_are_answered_in_order() {
    let server = Server::start(&[]);
    let body = short().to_string();
    let post = format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len());
    let get = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /v1/models/none HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = raw(&server, format!("{get}{post}{get}{last}").as_bytes());
    let marks = ["{\"status\":\"ok\"}", "chat.completion", "{\"status\":\"ok\"}", "model_not_found"];
    let mut rest = &*answer;
    for mark in marks {
        rest = rest.split_once(mark).unwrap_or_else(|| panic!("no {mark} in its place: {answer}")).1;
    }
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 4, "{answer}");
}

#[test]
fn bytes_that_are_no_text_are_refused_in_json() {
    let server = Server::start(&[]);
    let headers = [("content-type", "application/json")];
    let body = b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}";
    let (status, error) = server.send("POST", "/v1/chat/completions", &headers, body);
    assert_eq!((status, &error["error"]["code"]), (400, &json!("invalid_json")));
    for path in ["/v1/models/%FF", "/v1/models/%00", "/%FF", "/v1/models/..%2f.."] {
        assert_eq!(server.get(path).0, 404, "{path}");
    }
    let mut head =
        b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-request-id: \xff\xfe\r\n\r\n".to_vec();
    assert!(raw(&server, &head).starts_with("HTTP/1.1 200 "));
    head.retain(|byte| *byte != b'\r');
    raw(&server, &head);
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn json_that_is_deep_or_wide_is_refused() {
    let server = Server::start(&[]);
    let headers = [("content-type", "application/json")];
    let around =
        |content: String| format!("{{\"messages\": [{{\"role\": \"user\", \"content\": {content}}}]}}");
    for content in [
        "[".repeat(1 << 20),
        format!("{}1{}", "{\"a\":".repeat(1 << 16), "}".repeat(1 << 16)),
        "[[],".repeat(1 << 20),
    ] {
        let (status, error) =
            server.send("POST", "/v1/chat/completions", &headers, around(content).as_bytes());
        assert_eq!((status, &error["error"]["code"]), (400, &json!("invalid_json")));
    }
    assert_eq!(server.post(&short()).0, 200);
}

#[test]
fn texts_that_no_context_holds_are_refused() {
    let server = Server::start(&[]);
    let text = "a".repeat(8 << 20);
    for (body, param) in [
        (json!({"messages": [{"role": "user", "content": text}]}), "messages"),
        (
            json!({"messages": [{"role": "system", "content": text}, {"role": "user", "content": "hi"}]}),
            "messages",
        ),
        (json!({"messages": [{"role": "user", "content": "hi"}], "guide": text}), "guide"),
    ] {
        let (status, error) = server.post(&body);
        let error = &error["error"];
        assert_eq!(
            (status, &error["code"], &error["param"]),
            (400, &json!("context_length_exceeded"), &json!(param))
        );
        assert!(error["message"].as_str().unwrap().contains("at least"), "{error}");
    }
    assert_eq!(server.post(&short()).0, 200);
}

#[test]
fn pictures_that_grow_beyond_measure_are_refused() {
    let server = Server::start(&[]);
    // Sizes alone: a PNG, a GIF and a BMP of thousands of millions of pixels.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0, 8, 2, 0, 0, 0]);
    png.extend(crc32(&png[12..]).to_be_bytes());
    let gif = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
        .to_vec();
    let mut bmp =
        b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\xff\xff\xff\x7f\xff\xff\xff\x7f\x01\0\x18\0".to_vec();
    bmp.resize(54, 0);
    for (kind, bytes) in [("png", png), ("gif", gif), ("bmp", bmp)] {
        let (status, error) = server.post(&about(kind, &bytes));
        assert_eq!((status, &error["error"]["code"]), (400, &json!("invalid_image")), "{kind}: {error}");
    }
    assert_eq!(server.post(&short()).0, 200);
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn work_for_a_client_that_went_away_keeps_its_place() {
    // A place for pictures that answers only when it is told.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.png", listener.local_addr().unwrap());
    let (asked, hear) = channel();
    let (tell, told) = channel::<()>();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        asked.send(()).unwrap();
        told.recv().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    });
    let server = Server::start(&["--max-running", "1", "--queue", "0", "--media-hosts", "127.0.0.1"]);
    let image = json!({"type": "image_url", "image_url": {"url": url}});
    let stream = server.begin(&json!({"messages": [{"role": "user", "content": [image]}]}));
    hear.recv().unwrap();
    drop(stream);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.post(&short()).0, 429, "what it asked for is still being done");
    tell.send(()).unwrap();
    server.until("there is room again", || server.post(&short()).0 == 200);
}
