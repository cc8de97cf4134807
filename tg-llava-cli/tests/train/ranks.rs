//! Runs of several ranks.

use super::*;

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
