use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::manifest::MANIFEST_FILE;
use super::*;
use crate::data::DataPosition;

type Written = std::result::Result<(), CheckpointError>;

pub(super) fn store(folder: &TempDir, keep: Option<usize>) -> CheckpointStore {
    CheckpointStore::open(folder.path().join("run"), keep.and_then(NonZeroUsize::new)).unwrap()
}

fn state(step: usize) -> TrainState {
    TrainState {
        step,
        position: DataPosition { epoch: 0, sample: step * 4 },
        rng: serde_json::json!([step, u64::MAX]),
        seconds: step as f64 / 3.0,
        loss_scale: Some(65536.0),
        best: None,
        fingerprint: [("seed".to_owned(), "42".to_owned())].into(),
    }
}

/// A small checkpoint with a folder in it, all of it a function of the step.
fn contents(step: usize) -> impl FnOnce(&Path) -> Written {
    move |dir| {
        let values: Vec<u8> = (0..40).map(|at| (at * step) as u8).collect();
        let read = move || Ok::<_, io::Error>(values);
        write_tensors(&dir.join(OPTIMIZER_FILE), [TensorSource::new("first/a", Dtype::F32, [2, 5], read)])?;
        fs::create_dir(dir.join("tower")).unwrap();
        fs::write(dir.join("tower/config.json"), format!("{{\"step\": {step}}}")).unwrap();
        fs::write(dir.join("empty.txt"), "").unwrap();
        state(step).write(dir)
    }
}

pub(super) fn save(store: &CheckpointStore, step: usize) -> Saved {
    store.save(step, contents(step)).unwrap()
}

pub(super) fn save_all(store: &CheckpointStore, steps: &[usize]) {
    steps.iter().for_each(|step| assert!(save(store, *step).rotation.problems.is_empty()));
}

pub(super) fn best(step: usize) -> Best {
    Best { step, metric: "eval_loss".to_owned(), value: 0.1 + 0.2 }
}

/// Names in the output folder.
pub(super) fn names(store: &CheckpointStore) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(store.output_dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(super) fn latest_step(store: &CheckpointStore) -> Option<usize> {
    store.latest().unwrap().checkpoint.map(|checkpoint| checkpoint.step())
}

/// The only damage on the way to the newest valid checkpoint, and that one's step.
fn one_damage(store: &CheckpointStore) -> (String, Option<usize>) {
    let Latest { checkpoint, damaged } = store.latest().unwrap();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    (damaged[0].to_string(), checkpoint.map(|checkpoint| checkpoint.step()))
}

#[test]
fn what_is_saved_is_found_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, None);
    assert_eq!(latest_step(&store), None);
    save(&store, 5);
    let saved = save(&store, 10);
    assert_eq!(saved.path, store.path_of(10));
    assert_eq!(names(&store), ["checkpoint-10", "checkpoint-5"]);

    let Latest { checkpoint, damaged } = store.latest().unwrap();
    let checkpoint = checkpoint.unwrap();
    assert!(damaged.is_empty());
    assert_eq!((checkpoint.step(), checkpoint.path()), (10, store.path_of(10).as_path()));
    assert_eq!(
        checkpoint.state(&state(10).fingerprint, Fingerprint::new()).unwrap(),
        (state(10), Vec::new())
    );
    let values = checkpoint.optimizer().unwrap()[0].read("first/a", Dtype::F32, &[2, 5]).unwrap();
    assert_eq!(values[3], 30);
    assert_eq!(Checkpoint::open(store.path_of(10)).unwrap(), checkpoint);
    let now = [("seed".to_owned(), "43".to_owned())].into();
    let error = checkpoint.state(&now, Fingerprint::new()).unwrap_err().to_string();
    assert!(
        error.contains("checkpoint-10: ") && error.contains("seed: `42` in the checkpoint, `43` now"),
        "{error}"
    );
}

#[test]
fn the_manifest_is_what_the_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let saved = save(&store(&folder, None), 7);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(saved.path.join(MANIFEST_FILE)).unwrap()).unwrap();
    assert_eq!(manifest["version"], 1);
    assert_eq!((&manifest["step"], &manifest["saved"]), (&7.into(), &1.into()));
    let files = manifest["files"].as_object().unwrap();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["empty.txt", "optimizer.safetensors", "state.json", "tower/config.json"]);
    assert_eq!(files["tower/config.json"]["bytes"], 11);
    assert_eq!(files["empty.txt"]["xxh3_128"], hash_bytes(b""));
    assert_eq!(
        files["tower/config.json"]["xxh3_128"],
        hash_file(&saved.path.join("tower/config.json")).unwrap()
    );
}

/// Resumed from step 10 because of an error later on: what is saved then is newer than step 30 of before.
#[test]
fn the_newest_is_the_one_saved_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, Some(2));
    save_all(&store, &[10, 30, 20]);
    assert_eq!(latest_step(&store), Some(20));
    assert_eq!(names(&store), ["checkpoint-20", "checkpoint-30"]);
    save(&store, 25);
    assert_eq!(names(&store), ["checkpoint-20", "checkpoint-25"]);
}

#[test]
fn the_damage_is_told_and_the_one_before_is_used() {
    type Harm = fn(&Path);
    let damage: [(&str, Harm); 9] = [
        ("tower/config.json does not hold what was saved", |dir| {
            fs::write(dir.join("tower/config.json"), "{\"step\": 3}").unwrap();
        }),
        ("optimizer.safetensors has 9 bytes instead of ", |dir| {
            fs::File::options().write(true).open(dir.join(OPTIMIZER_FILE)).unwrap().set_len(9).unwrap();
        }),
        ("empty.txt has 1 bytes instead of 0", |dir| fs::write(dir.join("empty.txt"), "x").unwrap()),
        ("state.json is missing", |dir| fs::remove_file(dir.join(STATE_FILE)).unwrap()),
        ("tower/config.json is missing", |dir| fs::remove_dir_all(dir.join("tower")).unwrap()),
        ("manifest.json is missing", |dir| fs::remove_file(dir.join(MANIFEST_FILE)).unwrap()),
        ("not valid JSON", |dir| fs::write(dir.join(MANIFEST_FILE), "{\"version\": 1,").unwrap()),
        ("format version 2, but this program reads 1", |dir| edit(dir, "\"version\": 1", "\"version\": 2")),
        ("manifest.json was changed", |dir| edit(dir, "empty.txt", "/etc/hosts")),
    ];
    for (expected, harm) in damage {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, None);
        save_all(&store, &[1, 2]);
        harm(&store.path_of(2));
        let (told, used) = one_damage(&store);
        assert!(
            told.contains("checkpoint-2: not a usable checkpoint: ") && told.contains(expected),
            "{told}"
        );
        assert_eq!(used, Some(1), "{told}");
        // The run goes on from there and saves the step again.
        save(&store, 2);
        assert_eq!(latest_step(&store), Some(2), "{told}");
        assert_eq!(names(&store), ["checkpoint-1", "checkpoint-2"], "{told}");
        harm(&store.path_of(1));
        harm(&store.path_of(2));
        let Latest { checkpoint, damaged } = store.latest().unwrap();
        assert!(checkpoint.is_none() && damaged.len() == 2, "{damaged:?}");
    }
}

fn edit(dir: &Path, from: &str, to: &str) {
    let path = dir.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_renamed_checkpoint_is_used_outside_of_the_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, None);
    save_all(&store, &[1, 2]);
    let elsewhere = folder.path().join("my favourite");
    fs::rename(store.path_of(2), &elsewhere).unwrap();
    fs::write(elsewhere.join("notes.txt"), "a file that the manifest does not know").unwrap();
    assert_eq!(Checkpoint::open(elsewhere).unwrap().step(), 2);
    fs::rename(store.path_of(1), store.path_of(3)).unwrap();
    let (told, used) = one_damage(&store);
    assert!(told.ends_with("the folder's name says step 3, manifest.json says step 1"), "{told}");
    assert_eq!(used, None);
}

#[test]
fn a_best_checkpoint_is_saved_and_has_a_number() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, None);
    assert!(store.best().unwrap().is_none());
    let error = store.mark_best(&best(3)).unwrap_err().to_string();
    assert!(error.contains("checkpoint-3: no such checkpoint; save step 3"), "{error}");
    save(&store, 3);
    let error = store.mark_best(&Best { value: f64::NAN, ..best(3) }).unwrap_err().to_string();
    assert!(error.contains("eval_loss of step 3 is NaN"), "{error}");
    assert!(store.best().unwrap().is_none());
    store.mark_best(&best(3)).unwrap();
    fs::remove_dir_all(store.path_of(3)).unwrap();
    assert!(matches!(store.best(), Err(CheckpointError::Damaged(_))));
}

#[test]
fn a_failed_save_changes_nothing_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, Some(1));
    save(&store, 1);
    let before = fs::read(store.path_of(1).join(MANIFEST_FILE)).unwrap();
    // The same step once more and the next one.
    for step in [1, 2] {
        let full = |dir: &Path| -> io::Result<()> {
            fs::write(dir.join("model.safetensors"), "half of it").unwrap();
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = store.save(step, full).unwrap_err();
        let CheckpointError::DiskFull { needed: Some(needed), .. } = &error else { panic!("{error}") };
        assert!((300..1000).contains(needed), "what the checkpoint before takes: {needed}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("tmp-checkpoint-{step}-")) && text.contains("a checkpoint takes "),
            "{text}"
        );

        let error = store.save(step, |_: &Path| Err::<(), _>("the tower melted")).unwrap_err().to_string();
        assert!(
            error.contains(&format!("tmp-checkpoint-{step}-")) && error.ends_with("the tower melted"),
            "{error}"
        );

        let panicked =
            std::panic::catch_unwind(|| store.save(step, |_: &Path| -> Written { panic!("in a stage") }));
        assert!(panicked.is_err());
        assert_eq!(names(&store), ["checkpoint-1"]);
        assert_eq!(fs::read(store.path_of(1).join(MANIFEST_FILE)).unwrap(), before);
    }
    assert_eq!(latest_step(&store), Some(1));
}

#[cfg(unix)]
#[test]
fn links_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, None);
    let link = |dir: &Path| std::os::unix::fs::symlink("/etc/hosts", dir.join("hosts"));
    let error = store.save(1, link).unwrap_err();
    assert!(matches!(&error, CheckpointError::NotPlain { path } if path.ends_with("hosts")), "{error}");
}

/// Every state that a crash can leave between two operations on names, made by hand.
#[test]
fn leftovers_are_put_back_or_cleaned() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(&folder, None);
    save_all(&first, &[1, 2, 3]);
    let run = first.output_dir();
    // Step 2 made room for another save of itself, which did not arrive.
    fs::rename(first.path_of(2), run.join("tmp-replaced-2-1")).unwrap();
    // Step 3 was replaced, and the old one is still there.
    fs::create_dir(run.join("tmp-replaced-3-1")).unwrap();
    // Half written, half deleted, half marked.
    fs::create_dir(run.join("tmp-checkpoint-4-1")).unwrap();
    fs::create_dir(run.join("tmp-removed-1-1")).unwrap();
    for name in ["tmp-best.json", "metrics.jsonl.partial", "model.safetensors.partial"] {
        fs::write(run.join(name), "{").unwrap();
    }
    fs::write(run.join("tmp-notes.txt"), "not ours").unwrap();

    let again = store(&folder, None);
    assert_eq!(latest_step(&again), Some(3));
    assert_eq!(Checkpoint::open(again.path_of(2)).unwrap().step(), 2);
    assert!(!run.join("tmp-replaced-3-1").exists());
    let mut cleaned = again.clean().unwrap();
    cleaned.sort();
    let expected = [
        "metrics.jsonl.partial",
        "model.safetensors.partial",
        "tmp-best.json",
        "tmp-checkpoint-4-1",
        "tmp-removed-1-1",
    ];
    assert_eq!(cleaned, expected.map(|name| run.join(name)));
    assert_eq!(names(&again), ["checkpoint-1", "checkpoint-2", "checkpoint-3", "tmp-notes.txt"]);
}

#[test]
fn an_output_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let error = CheckpointStore::open(folder.path().join("file/run"), None).unwrap_err().to_string();
    assert!(error.contains("file/run: "), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// One changed byte is noticed, but for a space of the manifest that becomes another space.
    #[test]
    fn no_changed_byte_goes_unnoticed(file in 0usize..5, at in any::<prop::sample::Index>(), flip in 1u8..) {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, None);
        save(&store, 9);
        let files = [OPTIMIZER_FILE, STATE_FILE, "tower/config.json", MANIFEST_FILE, MANIFEST_FILE];
        let path = store.path_of(9).join(files[file]);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        let was = bytes[at];
        bytes[at] ^= flip;
        fs::write(&path, &bytes).unwrap();
        let space = files[file] == MANIFEST_FILE && was.is_ascii_whitespace();
        prop_assert!(space || Checkpoint::open(store.path_of(9)).is_err(), "{} {at} {was}", files[file]);
    }
}
