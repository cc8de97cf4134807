//! A run that was cut off goes on.

use serde_json::json;

use super::common::{self, fixture, stdout};
use super::*;

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
    let (code, message) = ended(eval(&data, &output).arg("--force"));
    assert!(code == 2 && message.contains("another run is writing here"), "{message}");
    assert_eq!(read(&file), whole);
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

/// Starts `eval` as `arguments` say, kills it after the second answer, and gives what is written then.
fn killed(arguments: &[&std::ffi::OsStr], file: &Path) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
    let mut running = common::Running::start(command.args(arguments));
    while !std::fs::read_to_string(file).is_ok_and(|text| text.lines().count() >= 2) {
        assert!(running.0.try_wait().unwrap().is_none(), "it ended before it was killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    read(file)
}

/// Whatever a kill leaves, the same command goes on to the bytes of a run that nobody disturbed.
#[test]
fn a_killed_run_goes_on_to_the_same_bytes_with_both_harnesses() {
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("llava_vizwiz.jsonl");
    let line = |id: usize| {
        json!({ "question_id": id, "image": "photo_b.png", "text": format!("Is this number {id}?") })
            .to_string()
            + "\n"
    };
    std::fs::write(&questions, (0..60).map(line).collect::<String>()).unwrap();
    for data in [table(dir.path(), 60, None), questions] {
        let name = data.file_stem().unwrap().to_owned();
        let [whole, part] = ["whole", "part"].map(|kind| dir.path().join(&name).join(kind));
        std::fs::create_dir_all(&part).unwrap();
        let images = fixture("preprocess/images");
        let command = |output: &Path| {
            let mut command = eval(&data, output);
            command.arg("--image-folder").arg(&images);
            command
        };
        stdout(&mut command(&whole));
        let arguments = command(&part).get_args().map(ToOwned::to_owned).collect::<Vec<_>>();
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        let cut = killed(&arguments, &part.join("answers.jsonl"));
        let all = read(whole.join("answers.jsonl"));
        assert!(cut.len() < all.len() && all.starts_with(&cut), "{cut}");
        let (code, notes) = ended(&mut command(&part));
        assert!(code == 0 && notes.contains("answers are in"), "{notes}");
        for file in std::fs::read_dir(&whole).unwrap() {
            let name = file.unwrap().file_name();
            assert_eq!(read(part.join(&name)), read(whole.join(&name)), "{name:?}");
        }
    }
}

#[test]
fn a_question_that_is_asked_again_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let (data, output) = (table(dir.path(), 4, None), dir.path().join("out"));
    stdout(&mut eval(&data, &output));
    let file = output.join("answers.jsonl");
    let whole = read(&file);
    let second = whole.lines().nth(1).unwrap();
    std::fs::write(&file, whole.replace(&format!("{second}\n"), "")).unwrap();
    stdout(&mut eval(&data, &output));
    assert_eq!(read(&file), whole);
}

#[test]
fn a_new_start_leaves_nothing_of_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    stdout(&mut eval(&table(dir.path(), 3, None), &output));
    assert!(output.join("verdicts.csv").is_file() && output.join("MMStar.tsv").is_file());
    for name in ["upload.csv", "mme/count.txt", "judge.jsonl"] {
        std::fs::create_dir_all(output.join("mme")).unwrap();
        std::fs::write(output.join(name), "").unwrap();
    }
    let data = dir.path().join("mmbench_dev_20230712.tsv");
    std::fs::copy(dir.path().join("MMStar.tsv"), &data).unwrap();
    stdout(eval(&data, &output).args(["--force", "--harness", "llava", "--samples", "2"]));
    for name in ["verdicts.csv", "MMStar.tsv", "upload.csv", "mme/count.txt"] {
        assert!(!output.join(name).exists(), "{name}");
    }
    assert!(output.join("judge.jsonl").is_file());
    // A server takes answers to all questions.
    stdout(eval(&data, &output).args(["--harness", "llava"]));
    assert_eq!(read(output.join("upload.csv")).lines().count(), 4);
}

/// An adapter names its decoder and its towers, which lie elsewhere.
#[test]
fn another_decoder_or_tower_of_the_same_name_is_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("adapter");
    parity::copy(&fixture("lora/vicuna-tiny/r4_split/final"), &model);
    let base = dir.path().join("base-llm");
    parity::copy(&fixture("models/vicuna-tiny"), &base);
    let (data, output) = (table(dir.path(), 1, None), dir.path().join("out"));
    let run = || {
        let mut command = program();
        command.args(["eval", "--max-new-tokens", "2"]).args(common::device()).arg("--model").arg(&model);
        command.arg("--data").arg(&data).arg("--output").arg(&output);
        command
    };
    stdout(&mut run());
    stdout(&mut run());
    for part in ["model.safetensors", "clip-tower/config.json"] {
        let path = base.join(part);
        let whole = std::fs::read(&path).unwrap();
        let mut other = whole.clone();
        match part.ends_with("json") {
            true => other.push(b'\n'),
            // The lowest bit of a value.
            false => other[whole.len() - 4] ^= 1,
        }
        std::fs::write(&path, other).unwrap();
        let (code, message) = ended(&mut run());
        assert!(code == 2 && message.contains("model: "), "{part}: {message}");
        std::fs::write(&path, whole).unwrap();
    }
    let (code, message) = ended(run().arg("--image-folder").arg(dir.path()));
    assert!(code == 2 && message.contains("--image-folder: unknown, now "), "{message}");
}
