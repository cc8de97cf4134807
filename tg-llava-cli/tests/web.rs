//! Pictures from the web, served by a small server of the test's own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;

use common::{chat, fixture, outcome, photo, stdout};

/// Serves on a free port until the test ends; returns the address without a slash at its end.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let picture = std::fs::read(photo()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            // The rest of the request is read before anything is answered.
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
            let mut answer = match path.as_str() {
                // Neither name nor content type tells the format.
                "/photo" => b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_vec(),
                "/moved" => b"HTTP/1.1 302 Found\r\nLocation: /photo\r\n\r\n".to_vec(),
                "/circle" => b"HTTP/1.1 302 Found\r\nLocation: /circle\r\n\r\n".to_vec(),
                "/page" => b"HTTP/1.1 200 OK\r\n\r\n<html>no picture</html>".to_vec(),
                "/huge" => b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
                "/broken" => b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec(),
                _ => b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
            };
            if path == "/photo" {
                answer.extend(&picture);
            }
            let _ = (&stream).write_all(&answer);
        }
    });
    address
}

#[test]
fn a_picture_from_the_web_is_the_same_picture() {
    let server = serve();
    let ask = |source: &str| {
        stdout(chat(&fixture("models/vicuna-tiny")).args(["--image", source, "What is this?"]))
    };
    let local = ask(photo().to_str().unwrap());
    assert_eq!(ask(&format!("{server}/photo")), local);
    assert_eq!(ask(&format!("{server}/moved")), local);
}

#[test]
fn what_goes_wrong_on_the_web() {
    let server = serve();
    let mut all = String::new();
    for (path, arguments) in [
        ("none.png", &[][..]),
        ("broken", &[]),
        ("circle", &[]),
        ("page", &[]),
        ("huge", &[]),
        ("photo", &["--max-image-bytes", "1000"]),
    ] {
        let url = format!("{server}/{path}");
        let mut command = chat(&fixture("models/vicuna-tiny"));
        command.args(["--image", &url, "Hi"]).args(arguments);
        all += &format!("=== {path}\n{}", outcome(&mut command, &[(Path::new(&server), "SERVER")]));
    }
    insta::assert_snapshot!("web_errors", all);
}
