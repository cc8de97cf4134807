//! `report`: several runs in one table.

use serde_json::json;

use super::common::{program, stdout};
use super::*;

/// A folder of a run with these scores.
fn run(dir: &Path, benchmark: &str, harness: &str, splits: &Value, settings: &Value) {
    std::fs::create_dir_all(dir).unwrap();
    let report = (!splits.is_null()).then(|| json!({ "items": [], "splits": splits }));
    let state = if report.is_some() { "scored" } else { "not scored; its server scores the upload" };
    let scores = json!({
        "benchmark": benchmark, "harness": harness, "rules": "current", "state": state, "answered": 3,
        "failures": [], "report": report,
    });
    std::fs::write(dir.join("scores.json"), scores.to_string()).unwrap();
    std::fs::write(dir.join("run.json"), settings.to_string()).unwrap();
}

#[test]
fn an_ablation_is_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let settings = json!({ "model": "a", "longest answer": "2048" });
    let [base, full] = ["base", "full"].map(|name| dir.path().join(name));
    let mme = json!({ "none": { "perception": 1400.5, "reasoning": 300.0, "OCR": 120.0 } });
    run(&base.join("MME"), "MME", "vlmevalkit", &mme, &settings);
    run(
        &base.join("MMStar"),
        "MMStar",
        "vlmevalkit",
        &json!({ "none": { "Overall": 0.3333333 } }),
        &settings,
    );
    run(
        &full.join("MMStar"),
        "MMStar",
        "vlmevalkit",
        &json!({ "none": { "Overall": 0.4 } }),
        &json!({ "model": "b", "longest answer": "16" }),
    );
    run(&full.join("MMVet"), "MMVet", "vlmevalkit", &Value::Null, &settings);
    run(
        &full.join("vqa"),
        "llava_textvqa_val",
        "llava",
        &json!({ "none": { "accuracy": 0.5, "samples": 4.0 } }),
        &settings,
    );
    let report = || {
        let mut command = program();
        command.arg("report").arg(&base).arg(format!("all of it={}", full.display()));
        command
    };
    let expected = "\
| run | MME perception | MME reasoning | MMStar | MMVet | llava_textvqa_val (LLaVA) |
|---|--:|--:|--:|--:|--:|
| base | 1400.50 | 300.00 | 33.33 | – | – |
| all of it | – | – | 40.00 | not scored | 50.00 |

- MMStar: longest answer differs (base 2048, all of it 16)
";
    assert_eq!(stdout(&mut report()), expected);
    let all = stdout(report().arg("--all"));
    assert!(
        all.starts_with("| benchmark | split | score | base | all of it |\n|---|--:|--:|--:|--:|\n"),
        "{all}"
    );
    assert!(all.contains("| MME |  | OCR | 120.0000 | – |\n"), "{all}");
    let value: Value = serde_json::from_str(&stdout(report().arg("--json"))).unwrap();
    assert_eq!(value[0]["headlines"], json!({ "MME perception": 1400.5, "MME reasoning": 300.0 }));
    assert_eq!(value.as_array().unwrap().len(), 5);
}

#[test]
fn a_run_of_eval_is_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    stdout(&mut eval(&table(dir.path(), 3, None), &output));
    let text = stdout(program().arg("report").arg(&output));
    assert!(text.starts_with("| run | MMStar |\n|---|--:|\n| out | "), "{text}");
}

#[test]
fn folders_that_are_no_runs_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let report = |runs: &[&Path]| ended(program().arg("report").args(runs));
    let (code, message) = report(&[dir.path()]);
    assert!(code == 2 && message.contains("no scores.json here or below"), "{message}");
    let (code, message) = report(&[&dir.path().join("nowhere")]);
    assert!(code == 2 && message.contains("nowhere: "), "{message}");
    let scores = json!({ "none": { "Overall": 0.5 } });
    let [one, two] = ["one/a", "one/b"].map(|name| dir.path().join(name));
    run(&one, "AI2D_TEST", "vlmevalkit", &scores, &json!({}));
    run(&two, "AI2D_TEST", "vlmevalkit", &scores, &json!({}));
    let (code, message) = report(&[&dir.path().join("one")]);
    assert!(code == 2 && message.contains("b: a second run of the same benchmark in one"), "{message}");
    let (code, message) = report(&[&one, &one]);
    assert!(code == 2 && message.contains("two runs have the same name"), "{message}");
    std::fs::write(one.join("scores.json"), "{}").unwrap();
    let (code, message) = report(&[&one]);
    assert!(code == 2 && message.contains("scores.json: missing field `benchmark`"), "{message}");
}
