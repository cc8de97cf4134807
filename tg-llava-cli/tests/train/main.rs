//! `train`: what a user meets when something is wrong, and what a killed run leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod ranks;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{Running, program};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// The arguments of a short run into `out`.
fn arguments(out: &Path) -> Vec<String> {
    let (examples, out) = (examples(), out.display().to_string());
    let file = examples.join("runs/easy-vqa/train.toml").display().to_string();
    let set = [
        format!("output_dir={out}"),
        format!("model.path={}", examples.join("runs/easy-vqa/model").display()),
        "model.dropout=0.1".to_owned(),
        format!("data.path={}", examples.join("data/easy-vqa/train.json").display()),
        format!("data.image_folder={}", examples.join("data/easy-vqa/images").display()),
        format!("data.validation.path={}", examples.join("data/easy-vqa/test.json").display()),
        "data.validation.samples=2".to_owned(),
        "data.validation.every=0".to_owned(),
        "run.batch_size=2".to_owned(),
        "run.max_steps=12".to_owned(),
        "run.save_steps=1".to_owned(),
        "run.log_every=1".to_owned(),
    ];
    let mut arguments = vec!["train".to_owned(), "--config".to_owned(), file];
    arguments.extend(["--device", "flex", "-q"].map(str::to_owned));
    for assignment in set {
        arguments.extend(["--set".to_owned(), assignment]);
    }
    arguments
}

/// The program, started in silence.
fn start(arguments: &[String]) -> Running {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tg-llava-cli"));
    // In a container, whoever tests may be root.
    command.envs(common::AS_ROOT);
    Running::start(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// What the program says when it refuses a run.
fn refusal(out: &Path, extra: &[&str]) -> String {
    let output = program().args(arguments(out)).args(extra).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_run_killed_again_and_again_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    program().args(arguments(&whole)).assert().success();
    // Ever longer, so that every part of a step and of a save is hit and the run still ends.
    for round in 0..12u64 {
        let child = start(&arguments(&killed));
        std::thread::sleep(Duration::from_millis(60 + 23 * round));
        drop(child);
    }
    program().args(arguments(&killed)).assert().success();
    let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert!(read(&whole) == read(&killed));
}

/// The arguments of a run that lasts until it is stopped, and saves nothing before.
fn endless(out: &Path) -> Vec<String> {
    let mut arguments = arguments(out);
    for assignment in ["run.max_steps=1000000", "run.save_steps=0", "data.validation="] {
        arguments.extend(["--set", assignment].map(str::to_owned));
    }
    arguments
}

/// Waits until the run into `out` has made `steps` steps.
fn wait_for_steps(out: &Path, steps: usize) {
    for _ in 0..1200 {
        let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
        if metrics.lines().count() >= steps {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("no {steps} steps in two minutes");
}

/// Names of the checkpoints in `out`.
fn checkpoints(out: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("checkpoint-")).collect()
}

/// As a batch system asks, and as `timeout` does: to the program and to its group, so twice.
#[cfg(unix)]
#[test]
fn a_run_that_is_terminated_saves() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut child = start(&endless(&out));
    wait_for_steps(&out, 2);
    send("-TERM", &child);
    send("-TERM", &child);
    assert_eq!(child.wait().code(), Some(130));
    assert_eq!(checkpoints(&out).len(), 1);
    assert!(!out.join("model.safetensors").exists());
}

/// Sends a signal, by its name, to a process.
#[cfg(unix)]
fn send(signal: &str, child: &Running) {
    let pid = child.0.id().to_string();
    assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tg-llava-cli")]);
    let mut child = Running::start(command.args(endless(&out)).stdout(Stdio::null()).stderr(Stdio::null()));
    wait_for_steps(&out, 2);
    send("-HUP", &child);
    let before = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().count();
    wait_for_steps(&out, before + 5);
    send("-TERM", &child);
    assert_eq!(child.wait().code(), Some(130));
}

/// burn-train's view puts the terminal into raw mode, in which Ctrl-C is no signal of its own accord.
#[cfg(all(target_os = "linux", feature = "tui"))]
#[test]
fn ctrl_c_ends_and_saves_a_run_in_the_terminal_view() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut arguments = endless(&out);
    arguments.retain(|argument| argument != "-q");
    let quoted: Vec<String> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
    let program = env!("CARGO_BIN_EXE_tg-llava-cli");
    // Whoever started the test may have had it ignore Ctrl-C, as shells do with what runs in the background.
    let shell =
        format!("stty rows 40 cols 120; exec env --default-signal=INT '{program}' {}", quoted.join(" "));
    // `script` runs it on a pseudo terminal, and passes on what is typed here.
    let mut script = std::process::Command::new("script");
    script.args(["--quiet", "--return", "--command", &shell, "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Running(script.spawn().expect("`script` of util-linux"));
    let mut shown = child.0.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut shown, &mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    wait_for_steps(&out, 2);
    let mut keys = child.0.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    let code = child.wait().code();
    let text = reader.join().unwrap();
    assert_eq!(code, Some(130), "{text}");
    assert!(text.contains("\x1b[?1049h") && text.contains("\x1b[?1049l"), "no view: {text}");
    assert!(text.contains("stopping after this step") && text.contains("interrupted"), "{text}");
    assert_eq!(checkpoints(&out).len(), 1);
}

#[test]
fn a_second_start_into_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let child = start(&endless(&out));
    wait_for_steps(&out, 1);
    for extra in [&[][..], &["--restart"]] {
        let message = refusal(&out, extra);
        assert!(message.contains(&out.display().to_string()) && message.contains("another run"), "{message}");
    }
    // A killed run leaves no lock.
    drop(child);
    program().args(arguments(&out)).arg("--restart").assert().success();
}

#[test]
fn nothing_is_written_into_the_model_that_a_run_starts_from() {
    let model = examples().join("runs/easy-vqa/model");
    let message = refusal(&model, &[]);
    assert!(message.contains("output_dir") && message.contains("model.path"), "{message}");
    assert!(!model.join(".lock").exists() && !model.join("metrics.jsonl").exists());
}

#[test]
fn a_wrong_image_folder_does_not_end_well() {
    let dir = tempfile::tempdir().unwrap();
    let (out, empty) = (dir.path().join("out"), dir.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    let folder = format!("data.image_folder={}", empty.display());
    let output = program()
        .args(arguments(&out))
        .args(["--set", "data.on_bad_sample=skip", "--set", "data.validation=", "--set", &folder])
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("nothing was learned") && message.contains("empty"), "{message}");
    assert!(!out.join("model.safetensors").exists());
}

#[test]
fn wrong_input_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let data = |text: &str| {
        let path = dir.path().join("data.json");
        std::fs::write(&path, text).unwrap();
        format!("data.path={}", path.display())
    };
    let sample = |image: &str, from: &str, value: &str| {
        format!(
            r#"[{{"id":"x7"{image},"conversations":[{{"from":"{from}","value":"{value}"}},{{"from":"gpt","value":"b"}}]}}]"#
        )
    };
    for (text, words) in [
        ("[{\"id\": 1,\n \"conversations\": 5}]".to_owned(), &["line 2", "conversations"][..]),
        (sample(r#","image":"train/0.png""#, "human", "no mark"), &["x7", "<image>"]),
        (sample("", "human", "<image> but no picture"), &["x7", "<image>"]),
        (sample("", "robot", "hi"), &["x7", "robot"]),
        (r#"[{"id":"x7","conversations":[]}]"#.to_owned(), &["x7", "conversations"]),
    ] {
        let message = refusal(&out, &["--set", &data(&text)]);
        assert!(words.iter().all(|word| message.contains(word)), "{text}: {message}");
    }
    let message = refusal(&out, &["--set", "data.image_folder=/nowhere"]);
    assert!(message.contains("/nowhere") && message.contains("image folder"), "{message}");
    let message = refusal(&out, &["--set", "optim.learning_rat=1"]);
    assert!(message.contains("optim.learning_rat"), "{message}");
    let message = refusal(&out, &["--set", "run.max_steps=0"]);
    assert!(message.contains("run.max_steps"), "{message}");
    for key in [
        "data.workers",
        "data.prefetch",
        "run.accumulation",
        "run.batch_size",
        "run.loss_chunk",
        "run.max_steps",
    ] {
        for value in ["9223372036854775807", "4294967296"] {
            let message = refusal(&out, &["--set", &format!("{key}={value}")]);
            assert!(message.contains(key) && message.contains("from 1 to"), "{message}");
        }
    }
    // A million samples at once fit into no machine, and the first step is never tried.
    let message = refusal(&out, &["--set", "run.batch_size=1048576"]);
    assert!(message.contains("memory") && message.contains("gradient_checkpointing"), "{message}");
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let output = program().args(arguments(&out)).args(["--dry-run", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["samples"], 248);
    assert_eq!(value["steps"], 12);
    assert!(value["parameters"]["total"].as_u64().unwrap() > 500_000);
    assert!(value["memory_total"].as_u64().unwrap() > 1 << 20 && value["seconds"].as_f64().unwrap() > 0.0);
    assert!(!out.exists());
}

#[test]
fn a_published_model_is_forecast_without_weights_or_data() {
    let forecast = |more: &[&str]| {
        let arguments = ["train", "--dry-run", "--preset", "qwen2-7b"];
        common::stdout(program().args(arguments).args(more))
    };
    let json = |more: &[&str]| serde_json::from_str::<serde_json::Value>(&forecast(more)).unwrap();
    let value = json(&["--json"]);
    assert_eq!((&value["stage"], &value["measured"]), (&"finetune".into(), &false.into()));
    let parts = value["forecast"]["memory"]["states"].as_array().unwrap();
    assert_eq!(parts.len(), 6);
    let sum = |name: &str| parts.iter().map(|part| part[name].as_u64().unwrap()).sum::<u64>();
    let total = value["parameters"]["total"].as_u64().unwrap();
    let trainable = value["parameters"]["trainable"].as_u64().unwrap();
    assert_eq!((sum("weights"), sum("moments")), (2 * total, 8 * trainable));
    // Eight ranks share what each of them learns with, whether this machine has eight GPUs or none.
    let eight = json(&["--json", "--nproc", "8"]);
    let moments =
        |value: &serde_json::Value| value["forecast"]["memory"]["states"][5]["moments"].as_u64().unwrap();
    assert_eq!(eight["forecast"]["ranks"], 8);
    assert!((7 * moments(&eight)..9 * moments(&eight)).contains(&moments(&value)));
    let cluster = json(&["--json", "--simulate", "0/16x8"]);
    assert_eq!(
        (&cluster["forecast"]["ranks"], &cluster["forecast"]["ranks_per_node"]),
        (&16.into(), &8.into())
    );
    assert_eq!(moments(&cluster), moments(&eight));
    // The options of any run count.
    let value = json(&["--json", "--stage", "pretrain", "--set", "run.batch_size=4", "--dtype", "f32"]);
    assert_eq!((&value["stage"], &value["forecast"]["batch_size"]), (&"pretrain".into(), &4.into()));
    assert_eq!(value["forecast"]["memory"]["states"][5]["weights"], 4 * 7_615_616_512u64);
    let text = forecast(&["--config", examples().join("runs/pretrain.toml").to_str().unwrap()]);
    for expected in ["nothing was read", "largest micro-batch", "80 GB (H100)", "computed, not measured"] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    program().args(["train", "--preset", "qwen2-7b"]).assert().code(2);
}

#[test]
fn the_shipped_checkpoint_answers_the_slice() {
    let data = examples().join("data/easy-vqa");
    let output = program()
        .args(["eval", "--json", "--device", "flex", "--max-new-tokens", "8", "--data"])
        .arg(data.join("test.json"))
        .arg("--image-folder")
        .arg(data.join("images"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(value["exact_match"].as_f64().unwrap() >= 0.98, "{value}");
}
