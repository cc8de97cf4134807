//! What `bench` prints.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::program;
use serde_json::Value;

/// Not the times, which are the machine's affair, but that they are there and belong together.
#[test]
fn times_throughput_and_roofline() {
    let arguments =
        ["bench", "-q", "--reps", "1", "--prompt", "4", "--new", "2", "--seq", "8", "--batch", "1"];
    let mut bench = program();
    bench.args(arguments).args(["--phase", "prefill,decode,train", "--stage", "1"]).args(common::device());
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["preset"], "smollm2-135m");
    let number = |value: &Value| value.as_f64().filter(|v| v.is_finite() && *v > 0.0).unwrap();
    number(&report["machine"]["copy_gbyte_per_s"]);
    number(&report["machine"]["matmul_gflop_per_s"]);
    assert!(report["phases"]["encode"].is_null(), "not asked for");
    assert!(report["phases"]["train"]["stage_2"].is_null(), "not asked for");
    for (name, phase, tokens) in [
        ("prefill", &report["phases"]["prefill"], 4.0),
        ("decode", &report["phases"]["decode"], 1.0),
        ("train", &report["phases"]["train"]["stage_1"], 8.0),
    ] {
        let (ms, roofline) = (number(&phase["ms"]), number(&phase["roofline_ms"]));
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.02;
        assert!(near(number(&phase["share_of_roofline"]), roofline / ms), "{name}: {phase}");
        assert!(near(number(&phase["tokens_per_s"]), tokens / (ms / 1e3)), "{name}: {phase}");
        assert!(number(&phase["gflop"]) > 0.0 && number(&phase["gbyte"]) > 0.1, "{name}: {phase}");
    }
}

#[test]
fn one_process_alone_is_a_world_whose_collectives_are_right() {
    let mut bench = program();
    bench.args(["bench", "-q", "--collectives", "--reps", "2"]).args(common::device());
    let output = bench.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ranks"], &report["rounds"]), (&1.into(), &2.into()));
}

#[test]
fn an_unknown_preset_names_the_known_ones() {
    let output = program().args(["bench", "--preset", "gpt-2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("smollm2-135m") && text.contains("vicuna-13b"), "{text}");
}

#[test]
fn sizes_beyond_all_memory_are_refused() {
    let largest = u64::MAX.to_string();
    for flag in ["--prompt", "--new", "--batch", "--seq", "--reps"] {
        for size in [largest.as_str(), "16777217", "0"] {
            let output = program().args(["bench", flag, size]).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(flag) && text.contains("from 1 to 16777216"), "{text}");
        }
    }
}
