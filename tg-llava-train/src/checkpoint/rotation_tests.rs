//! What a store keeps of its checkpoints.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::store_tests::{best, latest_step, names, save, save_all, store};

#[test]
fn rotation_keeps_the_limit_and_the_best() {
    for (keep, expected) in [
        (1, ["checkpoint-1", "checkpoint-5"].as_slice()),
        (2, &["checkpoint-1", "checkpoint-5"]),
        (3, &["checkpoint-1", "checkpoint-4", "checkpoint-5"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder, Some(keep));
        save(&store, 1);
        store.mark_best(&best(1)).unwrap();
        save_all(&store, &[2, 3, 4, 5]);
        let found = names(&store);
        assert_eq!(found[1..], *expected, "{keep}");
        let (record, checkpoint) = store.best().unwrap().unwrap();
        assert_eq!((record, checkpoint.step()), (best(1), 1));
        // Another best: the one before may go.
        let rotation = store.mark_best(&best(5)).unwrap();
        assert_eq!(rotation.removed.contains(&store.path_of(1)), keep == 1);
        save(&store, 6);
        assert!(!store.path_of(1).exists() && store.path_of(5).exists() && store.path_of(6).exists());
    }
}

#[test]
fn rotation_leaves_what_it_does_not_understand() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, Some(1));
    for name in ["checkpoint-1", "checkpoint-002", "checkpoint-x", "logs"] {
        fs::create_dir(store.output_dir().join(name)).unwrap();
    }
    save(&store, 2);
    save(&store, 3);
    assert_eq!(names(&store), ["checkpoint-002", "checkpoint-1", "checkpoint-3", "checkpoint-x", "logs"]);
    // Which one is the best cannot be told: none goes.
    fs::write(store.output_dir().join("best.json"), "{").unwrap();
    let rotation = save(&store, 4).rotation;
    assert!(rotation.removed.is_empty() && store.path_of(3).exists());
    assert!(
        rotation.problems[0].to_string().contains("best.json: not valid JSON"),
        "{:?}",
        rotation.problems
    );
}

/// The rule on a list, the oldest first.
fn rotate(order: &mut Vec<usize>, keep: usize, marked: Option<usize>) {
    while order.len() > keep
        && let Some(at) = order[..order.len() - 1].iter().position(|step| Some(*step) != marked)
    {
        order.remove(at);
    }
}

fn check_rotation(keep: usize, events: Vec<(usize, bool)>) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder, Some(keep));
    let (mut order, mut marked): (Vec<usize>, Option<usize>) = (Vec::new(), None);
    for (step, mark) in events {
        store.save(step, |dir: &Path| fs::write(dir.join("a"), [1])).unwrap();
        order.retain(|other| *other != step);
        order.push(step);
        rotate(&mut order, keep, marked);
        if mark {
            store.mark_best(&best(step)).unwrap();
            marked = Some(step);
            rotate(&mut order, keep, marked);
        }
        let mut expected: Vec<_> = order.iter().map(|step| format!("checkpoint-{step}")).collect();
        expected.extend(marked.map(|_| "best.json".to_owned()));
        expected.sort();
        prop_assert_eq!(names(&store), expected);
        prop_assert_eq!(latest_step(&store), order.last().copied());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rotation_follows_the_rule(
        keep in 1usize..4,
        events in prop::collection::vec((0usize..12, prop::bool::weighted(0.3)), 1..10),
    ) {
        check_rotation(keep, events)?;
    }
}
