//! A save is the old model or the new one, wherever it is killed.

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = entries(dir).unwrap().into_iter().map(|(name, _)| name).collect();
    names.sort();
    names
}

#[test]
fn every_form_of_weights_is_known_by_its_name() {
    for name in [
        "model.safetensors",
        "model.safetensors.index.json",
        "model-00001-of-00003.safetensors",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "pytorch_model-00002-of-00002.bin",
        "mm_cross_attn.safetensors",
        "mm_projector.bin",
    ] {
        assert!(is_weights(name), "{name}");
        assert!(is_leftover(&format!("{name}.partial")), "{name}");
    }
    for name in ["my_model.safetensors", "model-a-of-b.safetensors", "optimizer.safetensors", "mm_x.bin"] {
        assert!(!is_weights(name), "{name}");
    }
    assert!(is_leftover(".tmpa1B2c3") && !is_leftover(".tmp") && !is_leftover(".tmpa1B2c3.txt"));
}

#[test]
fn a_commit_replaces_weights_and_leaves_other_files() {
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["config.json", "mm_projector.bin", "pytorch_model.bin", "vocab.json", "notes.txt", ".tmpabcdef"]
    {
        fs::write(dir.path().join(name), "old").unwrap();
    }
    let staging = Staging::begin(dir.path()).unwrap();
    fs::create_dir(staging.path().join("tower")).unwrap();
    for name in ["config.json", "model.safetensors", "tower/config.json"] {
        fs::write(staging.path().join(name), "new").unwrap();
    }
    staging.commit(&["vocab.json"]).unwrap();
    assert_eq!(names(dir.path()), ["config.json", "model.safetensors", "notes.txt", "tower"]);
    assert_eq!(names(&dir.path().join("tower")), ["config.json"]);
    assert_eq!(fs::read_to_string(dir.path().join("config.json")).unwrap(), "new");
}

#[test]
fn a_commit_that_fails_keeps_the_new_files() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tower"] {
        fs::write(dir.path().join(name), "old").unwrap();
    }
    let staging = Staging::begin(dir.path()).unwrap();
    fs::create_dir(staging.path().join("tower")).unwrap();
    let new = ["config.json", "model.safetensors", "tower/config.json"];
    for name in new {
        fs::write(staging.path().join(name), "new").unwrap();
    }
    // A file is where the tower's folder must be.
    let error = staging.commit(&[]).unwrap_err().to_string();
    assert!(error.contains("tower"), "{error}");
    assert!(is_half_moved(dir.path()) && !dir.path().join("config.json").exists());
    for name in new {
        let places = [dir.path().join(STAGING).join(name), dir.path().join(name)];
        assert!(places.iter().any(|place| fs::read(place).is_ok_and(|text| text == b"new")), "{name}");
    }
}

/// A folder of the target that lies in the memory file system, where a rename does not reach.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_on_another_file_system_is_filled() {
    use std::os::unix::fs::symlink;
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
    symlink(other.path(), dir.path().join("tower")).unwrap();
    fs::write(dir.path().join("notes.txt"), "old").unwrap();
    symlink(dir.path().join("notes.txt"), other.path().join("vocab.json")).unwrap();
    let staging = Staging::begin(dir.path()).unwrap();
    fs::create_dir(staging.path().join("tower")).unwrap();
    for name in ["config.json", "tower/config.json", "tower/vocab.json"] {
        fs::write(staging.path().join(name), "new").unwrap();
    }
    staging.commit(&[]).unwrap();
    assert_eq!(names(dir.path()), ["config.json", "notes.txt", "tower"]);
    assert_eq!(names(other.path()), ["config.json", "vocab.json"]);
    assert_eq!(fs::read_to_string(other.path().join("vocab.json")).unwrap(), "new");
    assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "old");
}

#[test]
fn a_save_that_fails_or_is_killed_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("model.safetensors"), "old").unwrap();
    let staging = Staging::begin(dir.path()).unwrap();
    fs::write(staging.path().join("model.safetensors"), "new").unwrap();
    // A kill runs no destructor.
    std::mem::forget(staging);
    assert!(has_unfinished_save(dir.path()));
    assert_eq!(fs::read_to_string(dir.path().join("model.safetensors")).unwrap(), "old");
    drop(Staging::begin(dir.path()).unwrap());
    assert_eq!(names(dir.path()), ["model.safetensors"]);
    assert!(clean(dir.path()).unwrap().is_empty() && !has_unfinished_save(dir.path()));
}

const OLD: [&str; 6] =
    ["config.json", "model.safetensors", "mm_projector.bin", "vocab.json", "notes.txt", "tower/config.json"];
const NEW: [&str; 5] = [
    "config.json",
    "model-00001-of-00001.safetensors",
    "model.safetensors",
    "tower/config.json",
    "tower/vocab.json",
];

/// A folder with an old model and a complete new one that waits for its commit.
fn complete() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |dir: &Path, names: &[&str], text: &str| {
        fs::create_dir_all(dir.join("tower")).unwrap();
        names.iter().for_each(|name| fs::write(dir.join(name), text).unwrap());
    };
    write(dir.path(), &OLD, "old");
    let staging = Staging::begin(dir.path()).unwrap();
    write(staging.path(), &NEW, "new");
    Operation::Mark(staging.path().join(COMPLETE), "vocab.json\nmerges.txt".into()).run().unwrap();
    std::mem::forget(staging);
    dir
}

/// Does the first `count` operations that are left, and half of the next; whether there were more than that.
fn killed_after(dir: &Path, count: usize) -> bool {
    let all = operations(dir).unwrap();
    all.iter().take(count).for_each(|operation| operation.run().unwrap());
    // A copy to another file system that was cut short.
    if let Some(Operation::Move(from, to)) = all.get(count)
        && from.file_name() != Some(ENTRY.as_ref())
    {
        fs::write(to, "ne").unwrap();
    }
    count + 1 < all.len()
}

#[test]
fn a_killed_commit_is_finished_by_the_next_start() {
    let mut kills = 0;
    for first in 0.. {
        let mut more = true;
        // The start that finishes it may be killed as well.
        for second in 0.. {
            let dir = complete();
            more = killed_after(dir.path(), first);
            let still_more = killed_after(dir.path(), second);
            let whole = |text| fs::read_to_string(dir.path().join(ENTRY)).is_ok_and(|entry| entry == text);
            if has_unfinished_save(dir.path()) && !is_half_moved(dir.path()) {
                assert!(whole("old") && first == 0 && second == 0 || whole("new"), "{first}, {second}");
            }
            assert!(clean(dir.path()).unwrap().is_empty(), "{first}, {second}");
            let mut expected = [&NEW[..3], &["notes.txt", "tower"]].concat();
            expected.sort_unstable();
            assert_eq!(names(dir.path()), expected, "{first}, {second}");
            for name in NEW {
                assert_eq!(
                    fs::read_to_string(dir.path().join(name)).unwrap(),
                    "new",
                    "{name}: {first}, {second}"
                );
            }
            kills += 1;
            if !still_more {
                break;
            }
        }
        if !more {
            break;
        }
    }
    assert!(kills > 100, "{kills}");
}

/// A new save goes on from the one that was killed, so that a kill of its own leaves that one's model.
#[test]
fn a_new_save_finishes_the_killed_one_first() {
    let dir = complete();
    killed_after(dir.path(), 7);
    assert!(is_half_moved(dir.path()));
    std::mem::forget(Staging::begin(dir.path()).unwrap());
    assert!(!is_half_moved(dir.path()));
    assert!(NEW.iter().all(|name| fs::read(dir.path().join(name)).unwrap() == b"new"));
}
