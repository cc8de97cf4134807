//! `score`: answers to public benchmarks.

use super::common::stdout;
use super::*;

#[test]
fn answers_are_scored_by_the_name_of_the_data_set() {
    let folder = golden("ai2d/vlmevalkit");
    let (data, predictions) = (folder.join("AI2D_TEST.tsv"), folder.join("predictions.jsonl"));
    let text = stdout(&mut score(&data, &predictions));
    assert!(text.starts_with("AI2D_TEST, 30 rows\nall\n") && text.contains("0.4000"), "{text}");
    let json = stdout(score(&data, &predictions).args(["--json", "--rules", "2024"]));
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["report"]["splits"]["none"]["Overall"], 14.0 / 30.0);
    assert_eq!(value["report"]["items"][4]["read"], "B");
}

#[test]
fn files_that_cannot_be_scored_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("data.tsv");
    let (folder, pope) = (golden("ai2d/vlmevalkit"), golden("pope/vlmevalkit"));
    let (data, predictions) = (folder.join("AI2D_TEST.tsv"), folder.join("predictions.jsonl"));
    std::fs::copy(&data, &other).unwrap();
    let bad = dir.path().join("bad.jsonl");
    std::fs::write(&bad, "{\"index\": 0, \"prediction\": \"A\"}\n{\"index\": 0}\n").unwrap();
    let text = read(&predictions);
    let [twice, foreign] = ["twice.jsonl", "foreign.jsonl"].map(|name| dir.path().join(name));
    std::fs::write(&twice, format!("{text}\n{}\n", text.lines().next().unwrap())).unwrap();
    std::fs::write(&foreign, format!("{text}{{\"index\": 77, \"prediction\": \"A\"}}\n")).unwrap();
    for (data, predictions, expected) in [
        (&data, &twice, "twice.jsonl, line 32: index 0 has a prediction further up"),
        (&data, &foreign, "foreign.jsonl, line 31: "),
        (&other, &predictions, "name it with --benchmark"),
        (&data, &bad, "bad.jsonl, line 2: missing field `prediction`"),
        (&pope.join("POPE.tsv"), &predictions, "no prediction has the index 30"),
        (&dir.path().join("MMStar.tsv"), &predictions, "MMStar.tsv: "),
    ] {
        let output = score(data, predictions).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(expected), "{expected}: {message}");
    }
}
