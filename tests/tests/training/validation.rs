//! Checks on held-out samples.

use super::*;

/// Neither an unreadable picture, nor a prompt that is too long, nor a picture mark in an answer.
#[test]
fn validation_never_ends_a_run_and_comes_after_the_save() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(data_file(dir.path(), |_| true)).unwrap();
    let samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 3] = [
        ("picture", |sample| sample["image"] = "no_such.png".into()),
        ("long", |sample| {
            sample["conversations"][0]["value"] = format!("<image>\n{}", "is ".repeat(2000)).into()
        }),
        ("mark", |sample| {
            sample["conversations"][0]["value"] = "What?".into();
            sample["conversations"][1]["value"] = "<image>".into();
        }),
    ];
    for (name, change) in changes {
        let path = dir.path().join(format!("{name}.json"));
        let mut held: Vec<serde_json::Value> = samples[..3].to_vec();
        held[1]["id"] = name.into();
        change(&mut held[1]);
        std::fs::write(&path, serde_json::to_string(&held).unwrap()).unwrap();
        let mut config = everything(config(Stage::Finetune, &dir.path().join(name), 4));
        config.run.save_steps = Steps::Count(2);
        config.data.validation = Some(ValidationOptions {
            path: Some(path),
            every: Steps::Count(2),
            generate: true,
            max_new_tokens: 2,
            ..ValidationOptions::default()
        });
        let mut heard = Notes::default();
        let summary = open(&config).unwrap().run(&mut heard).unwrap();
        assert_eq!((summary.steps, summary.interrupted), (4, false), "{name}");
        assert!(config.output_dir.join("checkpoint-2").is_dir());
    }
}

/// Keeps what it is told.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn step(&mut self, _record: &StepRecord, _progress: (usize, usize)) {}
    fn evaluated(&mut self, _record: &EvalRecord) {}
    fn note(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

/// Stopped within the check of a step that is saved already, a run makes up for it and finds the same best step.
#[test]
fn a_check_that_was_cut_short_is_made_up_for() {
    let _turn = turn();
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = |dir: &Path| {
        let mut config = everything(config(Stage::Finetune, dir, 6));
        config.run.save_steps = Steps::Count(2);
        config.data.validation = Some(ValidationOptions {
            fraction: Some(0.1),
            every: Steps::Count(2),
            samples: 6,
            ..ValidationOptions::default()
        });
        config
    };
    let checks = |dir: &Path| -> Vec<(usize, f64)> {
        let records = read_metrics(dir.join("metrics.jsonl")).unwrap();
        let check = |record: Record| match record {
            Record::Eval(check) => Some((check.step, check.loss)),
            _ => None,
        };
        records.into_iter().filter_map(check).collect()
    };
    let expected = run(&config(whole.path()));
    open(&config(parts.path())).unwrap().run(&mut StopAfter(4)).unwrap();
    assert_eq!(checks(parts.path()).len(), 1);
    let summary = run(&config(parts.path()));
    assert_eq!(checks(parts.path()), checks(whole.path()));
    assert_eq!(summary.best, expected.best);
}

#[test]
fn validation_keeps_the_best_checkpoint() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let mut config = everything(config(Stage::Finetune, dir.path(), 6));
    config.data.validation = Some(ValidationOptions {
        fraction: Some(0.1),
        every: Steps::Count(2),
        samples: 6,
        generate: true,
        max_new_tokens: 3,
        ..ValidationOptions::default()
    });
    config.run.save_total_limit = Some(1);
    let summary = run(&config);
    let evaluation = summary.evaluation.unwrap();
    assert!(evaluation.samples == 6 && evaluation.loss.is_finite() && evaluation.exact_match.is_some());
    let best = summary.best.unwrap();
    assert!(dir.path().join(format!("checkpoint-{}", best.step)).is_dir());
    assert!(dir.path().join("loss.png").is_file() && dir.path().join("run.toml").is_file());
}
