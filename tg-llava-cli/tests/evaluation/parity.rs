//! `parity` of recorded evaluations.

use serde_json::json;

use super::common::{self, program};
use super::*;

/// The recorded cases: those in the sources, and all of them where they lie beside the repository.
fn recorded() -> Vec<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures/eval");
    if !beside.is_dir() {
        eprintln!("{} is not there: of some cases less is compared", beside.display());
    }
    [golden(""), beside].into_iter().filter(|dir| dir.is_dir()).collect()
}

fn compare(dirs: &[PathBuf]) -> (Option<i32>, Value) {
    let output = program().args(["parity", "--json"]).args(common::device()).args(dirs).output().unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        report.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr))),
    )
}

#[test]
fn every_recorded_evaluation_is_repeated() {
    let (code, report) = compare(&recorded());
    let folders = report["folders"].as_array().unwrap();
    let failed: Vec<&Value> = folders
        .iter()
        .flat_map(|folder| folder["rows"].as_array().unwrap())
        .filter(|row| row["verdict"] == "fail")
        .collect();
    assert!(code == Some(0) && failed.is_empty(), "{failed:#?}");
    assert!(folders.len() >= 29, "{}", folders.len());
    for folder in folders {
        assert!(!folder["rows"].as_array().unwrap().is_empty(), "{}", folder["folder"]);
    }
}

/// Copies the files of a folder, and what is below it.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => assert!(std::fs::copy(&path, &target).is_ok()),
        }
    }
}

/// Changes the value at `place` of a JSON file.
fn change(path: &Path, place: &str, value: Value) {
    let mut json: Value = serde_json::from_str(&read(path)).unwrap();
    *json.pointer_mut(place).unwrap_or_else(|| panic!("{place}")) = value;
    std::fs::write(path, json.to_string()).unwrap();
}

/// A comparison that cannot fail is none: each kind of recorded value is changed once.
#[test]
fn a_changed_value_is_noticed() {
    for (case, place, group) in [
        ("ai2d/vlmevalkit", "/items/0/inferred", "verdicts"),
        ("ai2d/vlmevalkit", "/items/3/inferred_2024", "verdicts"),
        ("ai2d/vlmevalkit", "/scores_2024/0/Overall", "scores_2024"),
        ("mmbench/vlmevalkit_dev_en", "/scores/0/LR", "scores"),
        ("mme/vlmevalkit", "/items/3/rule", "verdicts"),
        ("textvqa/vlmevalkit", "/items/5/answers_normal/2", "verdicts"),
        ("ocrbench/vlmevalkit", "/scores/Final Score", "scores"),
        ("pope/llava", "/scores/popular/f1_score", "scores"),
        ("mme/llava", "/items/9/question", "items"),
        ("gqa/llava", "/items/4/hit", "items"),
        ("vizwiz/llava", "/upload/3/answer", "upload"),
        ("vqav2/llava", "/upload/48/question_id", "upload"),
        ("vqav2/llava", "/score_of_raw/perQuestion/1000001", "score_of_raw"),
        ("scienceqa/llava", "/items/30/choice", "items"),
        ("scienceqa/llava", "/scores/img_accuracy_printed", "scores"),
        ("seedbench/llava", "/scores/image", "scores"),
        ("mmbench/llava_cn", "/upload/2/6", "upload"),
        ("mmvet/llava", "/results/v1_3", "results"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        copy(&golden(case), dir.path());
        change(&dir.path().join("expected.json"), place, "another value".into());
        let (code, report) = compare(&[dir.path().to_path_buf()]);
        let rows = report["folders"][0]["rows"].as_array().unwrap();
        let failed: Vec<&str> = rows
            .iter()
            .filter(|row| row["verdict"] == "fail")
            .map(|row| row["group"].as_str().unwrap())
            .collect();
        assert_eq!((code, failed), (Some(1), vec![group]), "{case} {place}");
    }
}

/// A made-up evaluation with a judge: what it is asked is compared as well as what comes of it.
#[test]
fn requests_to_a_judge_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("meta.json", json!({ "harness": "vlmevalkit", "dataset": "MMVet" }).to_string());
    write(
        "MMVet.tsv",
        "index\tquestion\tanswer\tcategory\timage\n0\tWho?\tcat\trec\tx\n1\tWhat?\tdog\trec\tx\n".into(),
    );
    let predictions =
        [json!({ "index": 0, "prediction": "a cat" }), json!({ "index": 1, "prediction": "a cow" })];
    write("predictions.jsonl", predictions.map(|line| line.to_string() + "\n").concat());
    let request = |prompt: &str, reply: &str| {
        let system = Value::Null;
        json!({ "prompt": prompt, "reply": reply, "system": system, "temperature": 0.0, "max_tokens": 2048 })
            .to_string()
            + "\n"
    };
    let score = |name: &str, total: u64| json!({ "Category": name, "tot": total, "acc": 50.0 });
    // A row of one capability alone counts twice there.
    let scores = [score("rec", 4), score("Overall", 2)];
    let expected = json!({
        "items": [{ "index": 0, "score": 1.0 }, { "index": 1, "score": 0.0 }],
        "scores": scores,
        "scores_by_combination": scores,
    });
    write("expected.json", expected.to_string());
    let asked = [request("Q Who? R cat A a cat S", "1"), request("Q What? R dog A a cow S", "0")];
    write("judge.jsonl", asked.concat());
    let (code, report) = compare(&[dir.path().to_path_buf()]);
    assert_eq!(code, Some(0), "{report:#}");
    for (other, message) in [
        (request("Q What? R dog: A a cow S", "0"), "index 1: prompt"),
        (request("Q What? R dog A a cow S", "0").replace("2048", "128"), "index 1: max_tokens"),
        (String::new(), "index 1: not asked in the recorded run"),
        (asked[1].clone() + &asked[1], "1 recorded requests are missing"),
    ] {
        write("judge.jsonl", asked[0].clone() + &other);
        let (code, report) = compare(&[dir.path().to_path_buf()]);
        let rows = report["folders"][0]["rows"].as_array().unwrap();
        let row = rows.iter().find(|row| row["group"] == "requests to the judge").unwrap();
        let note = row["note"].as_str().unwrap_or_default();
        assert!(code == Some(1) && note.contains(message), "{message}: {row}");
    }
}

/// LLaVA-Bench's judge compares an answer with the reference's.
#[test]
fn reviews_of_llava_bench_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("answers")).unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write("meta.json", json!({ "harness": "llava", "dataset": "llavabench" }).to_string());
    let question = json!({ "question_id": 3, "image": "a.png", "category": "conv", "text": "Who is it?" });
    write("questions.jsonl", question.to_string());
    write("context.jsonl", json!({ "image": "a.png", "caption": ["A cat.", "A dog."] }).to_string());
    write("answers_gpt4.jsonl", json!({ "question_id": 3, "text": "Tom." }).to_string());
    write("answers/model.jsonl", json!({ "question_id": 3, "text": "Rex." }).to_string());
    write("judge_replies.json", json!(["8 6\nFine."]).to_string());
    let scores = json!({ "relative": 75.0, "reference": 80.0, "model": 60.0 });
    let user = "C A cat.\nA dog. Q Who is it? 1 Tom. 2 Rex. S";
    let mut expected = json!({
        "scores": { "all": scores, "llava_bench_conv": scores },
        "reviews": [{ "question_id": 3, "category": "llava_bench_conv", "tuple": [8.0, 6.0] }],
        "requests": [{ "system": "Judge.", "user": user, "temperature": 0.2, "max_tokens": 1024 }],
    });
    write("expected.json", expected.to_string());
    let (code, report) = compare(&[dir.path().to_path_buf()]);
    assert_eq!((code, report["groups"].as_u64()), (Some(0), Some(3)), "{report:#}");
    expected["requests"][0]["max_tokens"] = 2048.into();
    write("expected.json", expected.to_string());
    let (code, report) = compare(&[dir.path().to_path_buf()]);
    assert!(
        code == Some(1) && report.to_string().contains("index 3: max_tokens 1024, recorded 2048"),
        "{report:#}"
    );
}

/// A folder of which nothing is compared is no proof.
#[test]
fn a_recorded_evaluation_that_lacks_what_is_compared_is_refused() {
    let failed = |dir: &Path| {
        let (code, message) = ended(program().arg("parity").args(common::device()).arg(dir));
        assert_ne!(code, 0);
        message
    };
    let dir = tempfile::tempdir().unwrap();
    copy(&golden("ai2d/vlmevalkit"), dir.path());
    std::fs::remove_file(dir.path().join("expected.json")).unwrap();
    let message = failed(dir.path());
    assert!(message.contains("expected.json is missing"), "{message}");
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("meta.json", r#"{"harness": "vlmevalkit", "dataset": "MMVet"}"#);
    write("MMVet.tsv", "index\tquestion\tanswer\tcategory\n0\tWho?\tcat\trec\n");
    write("predictions.jsonl", r#"{"index": 0, "prediction": "a cat"}"#);
    write("expected.json", "{}");
    let message = failed(dir.path());
    assert!(message.contains("judge.jsonl is missing"), "{message}");
    std::fs::remove_file(dir.path().join("predictions.jsonl")).unwrap();
    std::fs::create_dir(dir.path().join("answers")).unwrap();
    let message = failed(dir.path());
    assert!(message.contains("nothing there can be compared"), "{message}");
}
