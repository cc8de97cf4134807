//! `eval --benchmark`: answers, interruption, rows that cannot be used, and the files of a run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::{fixture, program, stdout};
use serde_json::{Value, json};

fn vicuna() -> PathBuf {
    fixture("models/vicuna-tiny")
}

fn picture() -> PathBuf {
    fixture("preprocess/images/photo_b.png")
}

/// A table of questions with options. `broken` is the row whose picture is none.
fn table(dir: &Path, rows: usize, broken: Option<usize>) -> PathBuf {
    let image = STANDARD.encode(std::fs::read(picture()).unwrap());
    let wrong =
        STANDARD.encode("no picture at all, though long enough to be taken for one and not for an index");
    let mut text = "index\tquestion\tA\tB\tanswer\tcategory\tl2-category\timage\n".to_owned();
    for row in 0..rows {
        let image = if broken == Some(row) { &wrong } else { &image };
        text += &format!("{row}\tIs this number {row}?\ta cat\ta dog\tA\tpets\tall\t{image}\n");
    }
    let path = dir.join("MMStar.tsv");
    std::fs::write(&path, text).unwrap();
    path
}

/// `eval` of a benchmark in a folder.
fn eval(data: &Path, output: &Path) -> Command {
    let mut command = program();
    command.args(["eval", "--max-new-tokens", "6", "--batch-size", "3"]).args(common::device());
    command.arg("--model").arg(vicuna()).arg("--data").arg(data).arg("--output").arg(output);
    command
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn lines(folder: &Path) -> Vec<Value> {
    read(folder.join("answers.jsonl")).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exit code and stderr.
fn ended(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn answers_are_those_of_chat_to_the_same_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let question = "Is there a dog?\nAnswer the question using a single word or phrase.";
    let lines_file = dir.path().join("llava_pope_test.jsonl");
    let line = json!({ "question_id": 7, "image": "photo_b.png", "text": question, "category": "random" });
    std::fs::write(&lines_file, format!("{line}\n")).unwrap();
    let pope = dir.path().join("POPE.tsv");
    let image = STANDARD.encode(std::fs::read(picture()).unwrap());
    let cells =
        format!("index\tquestion\tanswer\tcategory\timage\n7\t\"{question}\"\tYes\trandom\t{image}\n");
    std::fs::write(&pope, cells).unwrap();
    // VLMEvalKit has words of its own for Vicuna's template alone.
    for (model, data, name) in [("vicuna-tiny", &lines_file, "text"), ("llama3-tiny", &pope, "prediction")] {
        let model = fixture("models").join(model);
        let output = dir.path().join(name);
        let mut command = program();
        command.args(["eval", "--max-new-tokens", "12"]).args(common::device()).arg("--model").arg(&model);
        command.arg("--image-folder").arg(fixture("preprocess/images"));
        stdout(command.arg("--data").arg(data).arg("--output").arg(&output));
        let mut chat = common::chat(&model);
        let said = stdout(chat.arg("--image").arg(picture()).arg(question));
        assert_eq!(lines(&output)[0][name].as_str().unwrap(), said.trim(), "{name}");
    }
    assert_eq!(lines(&dir.path().join("text"))[0]["question_id"], 7);
}

#[test]
fn a_run_that_was_cut_off_goes_on_to_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let (data, output) = (table(dir.path(), 7, None), dir.path().join("out"));
    stdout(&mut eval(&data, &output));
    let file = output.join("answers.jsonl");
    let whole = read(&file);
    assert_eq!(whole.lines().count(), 7);
    // Three answers and a half, as a kill leaves them.
    let third = whole.match_indices('\n').nth(2).unwrap().0 + 1;
    std::fs::write(&file, &whole[..third + 9]).unwrap();
    let (code, notes) = ended(&mut eval(&data, &output));
    assert_eq!((code, read(&file)), (0, whole.clone()), "{notes}");
    assert!(notes.contains("3 of 7 answers are in"), "{notes}");
    let held = std::fs::File::open(&file).unwrap();
    held.lock().unwrap();
    let (code, message) = ended(&mut eval(&data, &output));
    assert!(code == 2 && message.contains("another run is writing here"), "{message}");
    drop(held);
    // What belongs to another run is left alone.
    let other = table(dir.path(), 6, None);
    let (code, message) = ended(&mut eval(&other, &output));
    assert!(code == 2 && message.contains("contents of --data: "), "{message}");
    let data = table(dir.path(), 7, None);
    let (code, message) = ended(eval(&data, &output).args(["--benchmark", "SEEDBench_IMG"]));
    assert!(code == 2 && message.contains("benchmark: MMStar, now SEEDBench_IMG"), "{message}");
    let (code, message) = ended(eval(&data, &output).args(["--dtype", "f16"]));
    assert!(code != 0 && read(&file) == whole, "{message}");
    std::fs::write(output.join("answers.jsonl"), "mine\n").unwrap();
    let (code, message) = ended(&mut eval(&data, &output));
    assert!(code == 2 && message.contains("answers.jsonl, line 1: this is no answer: mine"), "{message}");
    std::fs::remove_file(output.join("run.json")).unwrap();
    let (code, message) = ended(&mut eval(&data, &output));
    assert!(code == 2 && message.contains("of a run that is not known"), "{message}");
    stdout(eval(&data, &output).arg("--force"));
    assert_eq!(read(&file), whole);
}

#[test]
fn a_question_that_is_asked_twice_has_two_answers() {
    let dir = tempfile::tempdir().unwrap();
    let (data, output) = (dir.path().join("twice.jsonl"), dir.path().join("out"));
    let line =
        |text: &str| json!({ "question_id": "a", "image": "photo_b.png", "text": text }).to_string() + "\n";
    std::fs::write(&data, [line("What?"), line("Who?"), line("What?")].concat()).unwrap();
    let ask = || stdout(eval(&data, &output).arg("--image-folder").arg(fixture("preprocess/images")));
    ask();
    let whole = read(output.join("answers.jsonl"));
    let prompts: Vec<Value> = lines(&output).iter().map(|line| line["prompt"].clone()).collect();
    assert_eq!(prompts, ["What?", "Who?", "What?"]);
    let second = whole.match_indices('\n').nth(1).unwrap().0 + 1;
    std::fs::write(output.join("answers.jsonl"), &whole[..second]).unwrap();
    ask();
    assert_eq!(read(output.join("answers.jsonl")), whole);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let (data, output) = (table(dir.path(), 400, None), dir.path().join("out"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
    command.args(["eval", "-q", "--max-new-tokens", "100", "--batch-size", "1"]).args(common::device());
    command.arg("--model").arg(vicuna()).arg("--data").arg(&data).arg("--output").arg(&output);
    let mut running = common::Running::start(&mut command);
    let file = output.join("answers.jsonl");
    while !std::fs::read_to_string(&file).is_ok_and(|text| text.lines().count() >= 2) {
        assert!(running.0.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = running.0.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(running.wait().code(), Some(130));
    let kept = lines(&output).len();
    assert!((2..400).contains(&kept), "{kept}");
}

#[test]
fn a_bad_picture_costs_no_other_row_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    stdout(&mut eval(&table(dir.path(), 4, None), &good));
    let (code, message) = ended(&mut eval(&table(dir.path(), 4, Some(1)), &bad));
    assert!(code == 1 && message.contains("MMStar.tsv, line 3, index 1: "), "{message}");
    assert_eq!(message.matches("index 1: ").count(), 1, "{message}");
    let others: Vec<Value> = lines(&good).into_iter().filter(|line| line["index"] != 1).collect();
    assert_eq!(lines(&bad), others);
    let scores: Value = serde_json::from_str(&read(bad.join("scores.json"))).unwrap();
    assert_eq!(scores["failures"].as_array().unwrap().len(), 1);
    assert_eq!(scores["report"]["items"][1]["score"], 0.0);
}

#[test]
fn scores_are_those_of_the_answers_file() {
    let dir = tempfile::tempdir().unwrap();
    let (data, output) = (table(dir.path(), 5, None), dir.path().join("out"));
    let printed: Value = serde_json::from_str(&stdout(eval(&data, &output).arg("--json"))).unwrap();
    assert_eq!(printed["state"], "scored");
    let mut command = program();
    command
        .args(["score", "--json", "--data"])
        .arg(&data)
        .arg("--predictions")
        .arg(output.join("answers.jsonl"));
    let scored: Value = serde_json::from_str(&stdout(&mut command)).unwrap();
    assert_eq!(printed["report"], scored["report"]);
    let kept = read(output.join("MMStar.tsv"));
    assert!(kept.starts_with("index\tquestion\tA\tB\tanswer\tcategory\tl2-category\tprediction\n"), "{kept}");
    assert_eq!(read(output.join("verdicts.csv")).lines().count(), 6);
    let part = dir.path().join("part");
    let text = stdout(eval(&data, &part).args(["--samples", "2"]));
    assert!(text.contains("not scored, since only a part was asked"), "{text}");
    // The rest follows, and then all is scored.
    assert!(stdout(&mut eval(&data, &part)).contains("Overall"));
    assert_eq!(read(part.join("answers.jsonl")), read(output.join("answers.jsonl")));
}

/// A judge on this machine that says `reply` to each of `count` requests, which come back.
fn judge(reply: &'static str, count: usize) -> (String, std::thread::JoinHandle<Vec<(String, Value)>>) {
    use std::io::{BufRead, BufReader, Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let serve = move || {
        let answer = |stream: std::net::TcpStream| {
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
            let said =
                json!({ "choices": [{ "message": { "role": "assistant", "content": reply } }] }).to_string();
            let (status, said) =
                if head.contains("Bearer secret") { (200, said) } else { (401, "no key".into()) };
            let length = said.len();
            let text =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{said}");
            reader.into_inner().write_all(text.as_bytes()).unwrap();
            (head, serde_json::from_slice(&body).unwrap())
        };
        (0..count).map(|_| answer(listener.accept().unwrap().0)).collect()
    };
    (url, std::thread::spawn(serve))
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

#[test]
fn parity_compares_recorded_evaluations_and_notices_a_change() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tg-llava-benchmarks/tests/golden");
    let text = stdout(program().arg("parity").args(common::device()).arg(&golden));
    assert!(text.contains("prompts ") && text.contains("scores_2024") && text.contains(" 0 fail"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    for file in ["AI2D_TEST.tsv", "expected.json", "meta.json", "predictions.jsonl"] {
        std::fs::copy(golden.join("ai2d/vlmevalkit").join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().join("expected.json");
    let mut expected: Value = serde_json::from_str(&read(&path)).unwrap();
    expected["items"][0]["inferred"] = "Q".into();
    expected["scores"][0]["Overall"] = 0.123.into();
    std::fs::write(&path, expected.to_string()).unwrap();
    let output = program().arg("parity").args(common::device()).arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.contains(" 2 fail"), "{text}");
}
