//! Judges: over HTTP, several requests at once, and from replies that were kept.

use serde_json::json;

use super::common::{program, stdout};
use super::*;

/// A judge on this machine that says `reply` to each of `count` requests, which come back.
fn judge(reply: &'static str, count: usize) -> (String, std::thread::JoinHandle<Vec<(String, Value)>>) {
    judge_of(reply, count, 1)
}

/// One that replies to nobody until so many requests are `together`.
fn judge_of(
    reply: &'static str,
    count: usize,
    together: usize,
) -> (String, std::thread::JoinHandle<Vec<(String, Value)>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let serve = move || {
        let mut requests = Vec::new();
        while requests.len() < count {
            let streams: Vec<_> = (0..together).map(|_| listener.accept().unwrap().0).collect();
            requests.extend(streams.into_iter().map(|stream| answer(stream, reply)));
        }
        requests
    };
    (url, std::thread::spawn(serve))
}

/// Reads a request and replies to it.
fn answer(stream: std::net::TcpStream, reply: &str) -> (String, Value) {
    use std::io::{BufRead, BufReader, Read, Write};
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let said = json!({ "choices": [{ "message": { "role": "assistant", "content": reply } }] }).to_string();
    let (status, said) = if head.contains("Bearer secret") { (200, said) } else { (401, "no key".into()) };
    let length = said.len();
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{said}");
    reader.into_inner().write_all(text.as_bytes()).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_judge_is_asked_once_and_its_replies_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("MMStar.tsv");
    let table = "index\tquestion\tA\tB\tanswer\n1\tWhich?\tcat\tdog\tB\n2\tAnd {now}?\tred\tblue\tA\n";
    std::fs::write(&data, table).unwrap();
    let predictions = dir.path().join("answers.jsonl");
    let lines =
        "{\"index\": 1, \"prediction\": \"A puppy, I think it is\"}\n{\"index\": 2, \"prediction\": \"A\"}\n";
    std::fs::write(&predictions, lines).unwrap();
    let prompts = dir.path().join("prompts.json");
    let score = |url: &str, key: &str| {
        let mut command = program();
        command.env("JUDGE_KEY", key).args(["score", "--json", "--data"]).arg(&data);
        command.arg("--predictions").arg(&predictions).args([
            "--judge-model",
            "j",
            "--judge-key-env",
            "JUDGE_KEY",
        ]);
        command.args(["--judge-url", url, "--judge-prompts"]).arg(&prompts);
        command
    };
    std::fs::write(&prompts, "{}").unwrap();
    let (code, message) = ended(&mut score("http://127.0.0.1:9/v1", "secret"));
    assert!(code == 2 && message.contains("prompts.json: no `choice`"), "{message}");
    let choice = json!({ "choice": { "system": "Judge.", "user": "{question}\n{options}{prediction}" } });
    std::fs::write(&prompts, choice.to_string()).unwrap();
    let (url, refusing) = judge("B", 1);
    let (code, message) = ended(&mut score(&url, "wrong"));
    assert!(
        code == 1 && message.contains("index 1: ") && message.contains("answered 401: no key"),
        "{message}"
    );
    refusing.join().unwrap();
    let (url, asked) = judge("B", 1);
    let report = stdout(&mut score(&url, "secret"));
    let asked = asked.join().unwrap();
    assert!(asked[0].0.starts_with("POST /v1/chat/completions "), "{}", asked[0].0);
    let expected = json!({
        "model": "j", "temperature": 0.0, "max_tokens": 2048,
        "messages": [
            { "role": "system", "content": "Judge." },
            { "role": "user", "content": "Which?\nA. cat\nB. dog\nA puppy, I think it is" },
        ],
    });
    assert_eq!(asked[0].1, expected);
    let value: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(value["report"]["splits"]["none"]["Overall"], 1.0);
    // The judge is gone; what it said is not.
    assert_eq!(stdout(&mut score(&url, "secret")), report);
}

/// A data set of MM-Vet with answers to it, and a file of prompts.
fn mm_vet(dir: &Path, answers: &[&str]) -> [PathBuf; 3] {
    let paths = ["MMVet.tsv", "answers.jsonl", "prompts.json"].map(|name| dir.join(name));
    let row = |(index, _): (usize, &&str)| format!("{index}\tWhat is it?\tcat\trec\n");
    let table: String = answers.iter().enumerate().map(row).collect();
    std::fs::write(&paths[0], format!("index\tquestion\tanswer\tcategory\n{table}")).unwrap();
    let line = |(index, answer)| json!({ "index": index, "prediction": answer }).to_string() + "\n";
    std::fs::write(&paths[1], answers.iter().enumerate().map(line).collect::<String>()).unwrap();
    let prompts = json!({ "mm_vet": { "user": "{question} | {answer} | {prediction} |" } });
    std::fs::write(&paths[2], prompts.to_string()).unwrap();
    paths
}

#[test]
fn several_requests_are_asked_at_once_and_replies_serve_without_the_judge() {
    let dir = tempfile::tempdir().unwrap();
    let [data, answers, prompts] = mm_vet(dir.path(), &["a cat", "a dog", "a cow"]);
    // None is a number, so each row is asked five times: three at once, five times.
    let (url, asked) = judge_of("good", 15, 3);
    let mut command = score(&data, &answers);
    command.args(["--json", "--judge-model", "j", "--judge-jobs", "3", "--judge-url", &url]);
    let report = stdout(command.arg("--judge-prompts").arg(&prompts).env("OPENAI_API_KEY", "secret"));
    let asked = asked.join().unwrap();
    let heat = |(_, body): &(String, Value)| body["temperature"].as_f64().unwrap();
    let heats: Vec<f64> = asked.iter().map(heat).collect();
    assert_eq!(heats, [0.0, 0.5, 1.0, 1.5, 2.0].map(|heat| [heat; 3]).concat());
    let value: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(value["report"]["splits"]["none"]["Overall"], 0.0);
    let replies = dir.path().join("judge.jsonl");
    assert_eq!(stdout(score(&data, &answers).arg("--json").arg("--judge-replies").arg(&replies)), report);
    // Replies about other answers are noticed.
    std::fs::write(&answers, read(&answers).replace("a dog", "a fox")).unwrap();
    let (code, message) = ended(score(&data, &answers).arg("--judge-replies").arg(&replies));
    assert!(code == 2 && message.contains("is to another request than that about index 1"), "{message}");
}

#[test]
fn recorded_replies_are_taken_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let [data, answers, _] = mm_vet(dir.path(), &["a cat", "a dog"]);
    let replies = dir.path().join("replies.json");
    let scored = |list: Value| {
        std::fs::write(&replies, list.to_string()).unwrap();
        let mut command = score(&data, &answers);
        command.arg("--judge-replies").arg(&replies);
        command
    };
    assert!(stdout(&mut score(&data, &answers)).contains("not judged"));
    let text = stdout(&mut scored(json!(["1.0", "rather good", "0.5"])));
    assert!(text.contains("75.0000"), "{text}");
    let (code, message) = ended(&mut scored(json!(["1.0"])));
    assert!(code == 2 && message.contains("no reply about index 1, try 1"), "{message}");
    let (code, message) = ended(&mut scored(json!(["1.0", "1.0", "0.0"])));
    assert!(code == 2 && message.contains("1 replies more than are asked for"), "{message}");
    let (code, message) = ended(&mut scored(json!([7])));
    assert!(code == 2 && message.contains("reply 1: no text, and no `reply`"), "{message}");
}

#[test]
fn a_file_that_keeps_no_replies_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [data, answers, prompts] = mm_vet(dir.path(), &["a cat"]);
    let replies = dir.path().join("replies.json");
    let command = || {
        let mut command = score(&data, &answers);
        command.args(["--judge-model", "j", "--judge-url", "http://127.0.0.1:9/v1"]);
        command.arg("--judge-prompts").arg(&prompts).arg("--judge-replies").arg(&replies);
        command
    };
    for text in ["[\"1.0\"]", "mine", "mine\n"] {
        std::fs::write(&replies, text).unwrap();
        let (code, message) = ended(&mut command());
        assert!(
            code == 2 && message.contains("replies.json, line 1: this is no reply of a judge"),
            "{message}"
        );
        assert_eq!(read(&replies), text);
    }
    std::fs::write(&replies, "").unwrap();
    let held = std::fs::File::open(&replies).unwrap();
    held.lock().unwrap();
    let (code, message) = ended(&mut command());
    assert!(code == 2 && message.contains("another run is writing here"), "{message}");
}

#[test]
fn rows_that_share_a_request_have_a_reply_each() {
    let dir = tempfile::tempdir().unwrap();
    let [data, answers, prompts] = mm_vet(dir.path(), &["a cat", "a cat"]);
    let (url, asked) = judge("1.0", 1);
    let mut command = score(&data, &answers);
    command.args(["--json", "--judge-model", "j", "--judge-url", &url]).arg("--judge-prompts").arg(&prompts);
    let report = stdout(command.env("OPENAI_API_KEY", "secret"));
    assert_eq!(asked.join().unwrap().len(), 1);
    let replies = dir.path().join("judge.jsonl");
    assert_eq!(read(&replies).lines().count(), 2);
    let recorded = || {
        let mut command = score(&data, &answers);
        command.arg("--json").arg("--judge-replies").arg(&replies);
        command
    };
    assert_eq!(stdout(&mut recorded()), report);
    let text = read(&replies);
    let line = |index: &str, tried: usize| json!({ "index": index, "tried": tried, "reply": "1.0" });
    std::fs::write(&replies, format!("{text}{}\n", line("7", 0))).unwrap();
    let (code, message) = ended(&mut recorded());
    assert!(
        code == 2 && message.contains("reply 3 is about index 7, which the data set does not have"),
        "{message}"
    );
    std::fs::write(&replies, format!("{text}{}\n", line("1", 1))).unwrap();
    let (code, message) = ended(&mut recorded());
    assert!(code == 2 && message.contains("1 replies more than are asked for"), "{message}");
}

/// A reference that a judge gives no point is nothing to compare with.
#[test]
fn a_score_that_is_no_number_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: Value| {
        let path = dir.path().join(name);
        std::fs::write(&path, text.to_string()).unwrap();
        path
    };
    let data = write(
        "llava-bench.jsonl",
        json!({ "question_id": 1, "image": "a.png", "text": "Who?", "category": "conv" }),
    );
    write("context.jsonl", json!({ "image": "a.png", "caption": "A cat." }));
    write("answers_gpt4.jsonl", json!({ "question_id": 1, "text": "Tom." }));
    let answers = write("answers.jsonl", json!({ "question_id": 1, "text": "Rex." }));
    let replies = write("replies.json", json!(["0 6"]));
    let text = stdout(score(&data, &answers).arg("--json").arg("--judge-replies").arg(&replies));
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["report"]["splits"]["all"], json!({ "reference": 0.0, "model": 60.0 }));
}
