//! `train`: what a user meets when something is wrong, and what a killed run leaves.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

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

/// The arguments of a run of `ranks` ranks into `out` that does not depend on their number.
fn ranks(out: &Path, ranks: &str) -> Vec<String> {
    let mut arguments = arguments(out);
    for assignment in ["run.global_batch_size=12", "run.max_steps=4", "run.save_steps=0"] {
        arguments.extend(["--set", assignment].map(str::to_owned));
    }
    arguments.extend(["--nproc", ranks].map(str::to_owned));
    arguments
}

#[test]
fn several_ranks_end_with_the_bytes_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let model = |count: &str| {
        let out = dir.path().join(count);
        program().args(ranks(&out, count)).assert().success();
        let logs: Vec<bool> =
            (0..3).map(|rank| out.join(format!("ranks/rank-{rank:05}.log")).exists()).collect();
        (std::fs::read(out.join("model.safetensors")).unwrap(), logs)
    };
    let (one, logs) = model("1");
    assert_eq!(logs, [false; 3]);
    let (three, logs) = model("3");
    assert_eq!(logs, [false, true, true]);
    assert!(one == three);
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_a_run_of_several_ranks_and_the_same_command_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut arguments = endless(&out);
    arguments.extend(["--nproc", "2"].map(str::to_owned));
    for round in 1..=2 {
        let before = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default().lines().count();
        let mut child = start(&arguments);
        wait_for_steps(&out, before + 2);
        send("-INT", &child);
        assert_eq!(child.wait().code(), Some(130));
        assert_eq!(checkpoints(&out).len(), round);
    }
    let log = std::fs::read_to_string(out.join("ranks/rank-00001.log")).unwrap();
    assert!(log.contains("going on after step"), "{log}");
}

/// Whether a process still does something.
#[cfg(all(target_os = "linux", feature = "mpi"))]
fn lives(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

/// A run of three processes, and the number of each.
#[cfg(all(target_os = "linux", feature = "mpi"))]
fn processes(out: &Path, arguments: &[String]) -> (Running, Vec<u64>) {
    let child = start(arguments);
    wait_for_steps(out, 2);
    let pid = |rank: usize| {
        let told = std::fs::read(out.join(format!("ranks/rank-{rank:05}.json"))).unwrap();
        serde_json::from_slice::<serde_json::Value>(&told).unwrap()["pid"].as_u64().unwrap()
    };
    let pids: Vec<u64> = (0..3).map(pid).collect();
    assert!(pids.iter().all(|pid| lives(*pid)));
    (child, pids)
}

#[cfg(all(target_os = "linux", feature = "mpi"))]
#[test]
fn a_killed_rank_ends_the_others_and_the_same_command_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut arguments = endless(&out);
    arguments.extend(["--set", "run.save_steps=1", "--nproc", "3"].map(str::to_owned));
    let (mut child, pids) = processes(&out, &arguments);
    let killed = std::process::Command::new("kill").args(["-KILL", &pids[2].to_string()]).status();
    assert!(killed.unwrap().success());
    assert_eq!(child.wait().code(), Some(1));
    assert!(!pids.iter().any(|pid| lives(*pid)));
    let before = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().count();
    let mut child = start(&arguments);
    wait_for_steps(&out, before + 2);
    send("-TERM", &child);
    assert_eq!(child.wait().code(), Some(130));
}

#[cfg(all(target_os = "linux", feature = "mpi"))]
#[test]
fn ranks_do_not_outlive_their_launcher() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut arguments = endless(&out);
    arguments.extend(["--nproc", "3"].map(str::to_owned));
    let (child, pids) = processes(&out, &arguments);
    drop(child);
    for _ in 0..600 {
        if !pids.iter().any(|pid| lives(*pid)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("ranks are left");
}

#[test]
fn a_bad_sample_ends_all_ranks_and_is_named_once() {
    let dir = tempfile::tempdir().unwrap();
    let (out, path) = (dir.path().join("out"), dir.path().join("data.json"));
    let turns = r#"[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]"#;
    let good = (0..11).map(|id| format!(r#"{{"id":"good{id}","conversations":{turns}}}"#));
    let bad = r#"{"id":"x7","image":"nowhere.png","conversations":[{"from":"human","value":"<image>"},{"from":"gpt","value":"b"}]}"#;
    let samples: Vec<String> = good.chain([bad.to_owned()]).collect();
    std::fs::write(&path, format!("[{}]", samples.join(","))).unwrap();
    let mut arguments = ranks(&out, "3");
    for assignment in [format!("data.path={}", path.display()), "data.validation=".to_owned()] {
        arguments.extend(["--set".to_owned(), assignment]);
    }
    let output = program().args(arguments).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(message.matches("x7").count(), 1, "{message}");
    // Which of its ranks' exit codes mpirun takes for its own is not known.
    if cfg!(feature = "mpi") {
        assert!(!output.status.success());
    } else {
        assert_eq!((output.status.code(), message.matches("error:").count()), (Some(2), 1), "{message}");
    }
}

#[test]
fn ranks_write_nothing_into_the_model_that_a_run_starts_from() {
    let model = examples().join("runs/easy-vqa/model");
    let message = refusal(&model, &["--nproc", "2"]);
    assert!(message.contains("output_dir") && message.matches("error:").count() == 1, "{message}");
    assert!(!model.join("ranks").exists());
}

#[test]
fn ranks_are_counted_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for (extra, words) in [
        (&["--nproc", "0"][..], &["--nproc", "whole number"][..]),
        (&["--nproc", "many"], &["--nproc", "many"]),
        (&["--simulate", "8/8"], &["--simulate", "rank 8 of 8"]),
        (&["--simulate", "0/8", "--nproc", "2"], &["--nproc", "--simulate"]),
    ] {
        let message = refusal(&out, extra);
        assert!(words.iter().all(|word| message.contains(word)), "{extra:?}: {message}");
    }
    let refused = |variables: &[(&str, &str)], extra: &[&str]| {
        let output =
            program().args(arguments(&out)).args(extra).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let message = refused(&[("RANK", "0"), ("WORLD_SIZE", "2")], &[]);
    assert!(message.contains("RANK=0, WORLD_SIZE=2 without LOCAL_RANK"), "{message}");
    let two = [("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")];
    let message = refused(&two, &["--nproc", "2"]);
    assert!(message.contains("rank 0 of 2 already"), "{message}");
    assert!(!out.join("model.safetensors").exists());
}

/// Without a transport between processes, ranks that another program starts cannot meet.
#[cfg(not(feature = "mpi"))]
#[test]
fn ranks_of_their_own_need_something_to_meet_over() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let rank = |rank: &str| {
        let variables =
            [("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", "2")];
        let output = program().args(arguments(&out)).envs(variables).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = rank("0");
    assert!(
        code == Some(2) && message.contains("--features mpi") && message.contains("--nproc 2"),
        "{message}"
    );
    // The others say so in their files.
    #[cfg(unix)]
    {
        assert_eq!(rank("1"), (Some(2), String::new()));
        let log = std::fs::read_to_string(out.join("ranks/rank-00001.log")).unwrap();
        assert!(log.contains("--features mpi"), "{log}");
    }
}

/// LLaVA's own command lines, launchers and all, behind this program's.
#[test]
fn published_scripts_train_on_as_many_ranks_as_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (model, data) = (common::fixture("models/vicuna-tiny"), examples().join("data/easy-vqa"));
    let train = |head: &str, nproc: &[&str]| {
        let out = dir.path().join("out");
        let flags = format!(
            "--model_name_or_path {} --version v1 --data_path {} --image_folder {} --vision_tower {} --bf16 True \
             --mm_projector_type mlp2x_gelu --mm_vision_select_layer -2 --image_aspect_ratio pad \
             --group_by_modality_length True --output_dir {} --max_steps 1 --per_device_train_batch_size 1 \
             --gradient_accumulation_steps 2 --learning_rate 2e-5 --tf32 True --gradient_checkpointing True \
             --save_strategy no --dataloader_num_workers 1 --lazy_preprocess True --report_to wandb",
            model.display(),
            data.join("train.json").display(),
            data.join("images").display(),
            model.join("clip-tower").display(),
            out.display()
        );
        let mut command = program();
        command.args(["train", "--device", "flex", "--restart"]).args(nproc);
        let output = command.args(format!("{head} {flags}").split_whitespace()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{head}: {message}");
        message
    };
    for head in [
        "deepspeed llava/train/train_mem.py --deepspeed ./scripts/zero2.json",
        "deepspeed --include localhost:0,1 --master_port 29600 llava/train/train_mem.py --deepspeed ./scripts/zero3.json",
        "torchrun --nnodes=1 --nproc_per_node=8 --master_port=25001 llava/train/train_mem.py",
    ] {
        let message = train(head, &["--nproc", "8"]);
        // Of each of eight devices two batches of one sample.
        assert!(message.contains("1 optimizer steps of 16 x 1, on 8 x flex"), "{head}: {message}");
        assert_eq!(message.contains("--deepspeed is ignored"), head.contains("--deepspeed"), "{message}");
    }
    let message = train("torchrun --nproc_per_node=8 llava/train/train_mem.py", &[]);
    assert!(
        message.contains("`train --nproc N torchrun ...`") && message.contains("of 2 x 1, on flex"),
        "{message}"
    );
}

#[test]
fn nproc_alone_is_every_device() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut arguments = ranks(&out, "1");
    arguments.pop();
    arguments.retain(|argument| argument != "-q");
    let output = program().args(arguments).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && message.contains("flex is one device, so that --nproc is 1"),
        "{message}"
    );
}

#[test]
fn a_simulated_rank_tells_what_it_would_take_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut arguments = ranks(&out, "1");
    arguments.truncate(arguments.len() - 2);
    let output = program().args(arguments).args(["--simulate", "1/6x3", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told = lines.last().unwrap();
    assert_eq!((&told["rank"], &told["ranks"], &told["ranks_per_node"]), (&1.into(), &6.into(), &3.into()));
    assert_eq!(told["step_seconds"].as_array().unwrap().len(), 4);
    assert!(told["peak_memory_bytes"].as_u64().unwrap() > 1 << 20, "{told}");
    for kind in ["transpose", "all_gather", "sum_nodes", "exchange"] {
        assert!(told["traffic"][kind]["bytes_per_step"].as_f64().unwrap() > 0.0, "{kind}: {told}");
    }
    assert!(told["predicted_step_seconds"].as_f64().unwrap() > 0.0);
    assert!(!out.exists());
}
