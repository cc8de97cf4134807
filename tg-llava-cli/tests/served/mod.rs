//! A server to test, and what it takes to ask it.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::common::{self, Running};

/// How long a server may take to load its model, and to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The checkpoint that ships.
pub fn model() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../weights/easy-vqa"))
}

/// A picture such as the shipped checkpoint was trained on.
pub fn picture_file() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pictures/red-circle.png"))
}

/// That picture as a `data:` address.
pub fn picture() -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(std::fs::read(picture_file()).unwrap()))
}

/// Messages that ask about that picture.
pub fn question(text: &str) -> Value {
    let image = json!({"type": "image_url", "image_url": {"url": picture(), "detail": "low"}});
    json!([{"role": "user", "content": [image, {"type": "text", "text": text}]}])
}

/// A running server; it ends with the test.
pub struct Server {
    /// The process.
    pub running: Running,
    /// Host and port.
    pub address: String,
}

impl Server {
    /// Starts one with the shipped checkpoint, ready to answer.
    pub fn start(arguments: &[&str]) -> Self {
        let server = Self::loading(arguments, Stdio::null());
        server.await_health();
        server
    }

    /// Starts one that may still load its model.
    pub fn loading(arguments: &[&str], stderr: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
        command.args(["serve", "--port", "0"]).args(common::device()).args(arguments);
        if !arguments.contains(&"--model") {
            command.arg("--model").arg(model());
        }
        for name in ["TG_LLAVA_API_KEY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(stderr));
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("http://").unwrap_or_else(|| panic!("no address: {line:?}")).to_owned();
        Self { running, address }
    }

    /// Waits until it is ready.
    pub fn await_health(&self) {
        self.until("it is ready", || self.get("/health").0 == 200);
    }

    /// Waits until `what` holds.
    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Opens a connection and sends a request; for those who read the answer as it comes, or not at all.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        // A server may refuse before it has read everything.
        let _ = stream.write_all(body);
        stream
    }

    /// Status, head and body of the answer to a request.
    pub fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String, Vec<u8>) {
        let mut answer = Vec::new();
        self.open(method, path, headers, body).read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_off(end + 4);
        let body = if head.contains("transfer-encoding: chunked") { unchunked(&body) } else { body };
        (status, head, body)
    }

    /// Status and JSON of the answer to a request.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
        let (status, head, body) = self.exchange(method, path, headers, body);
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("x-request-id: "), "{head}");
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, &[], b"")
    }

    /// Asks for a chat completion.
    pub fn post(&self, body: &Value) -> (u16, Value) {
        self.send(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// A chat completion that is answered.
    pub fn chat(&self, body: Value) -> Value {
        let (status, answer) = self.post(&body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Begins a chat completion, whose answer is not read.
    pub fn begin(&self, body: &Value) -> TcpStream {
        self.open(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    }

    /// The chunks of a streamed chat completion.
    pub fn stream(&self, body: &Value) -> Vec<Value> {
        let headers = [("content-type", "application/json")];
        let (status, head, body) =
            self.exchange("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes());
        assert!(status == 200 && head.contains("content-type: text/event-stream"), "{head}");
        let text = String::from_utf8(body).unwrap();
        let mut events: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(events.split_off(events.len() - 2), ["data: [DONE]", ""]);
        events
            .iter()
            .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    /// A value of the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.exchange("GET", "/metrics", &[], b"").2).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }
}

/// The data of a chunked body.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        data.extend(&body[end + 2..end + 2 + len]);
        body = &body[end + 2 + len + 2..];
    }
    data
}
