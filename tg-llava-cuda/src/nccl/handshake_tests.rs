use std::sync::Barrier;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(2);

/// An id that is not told from nonces by what is in it.
fn id(start: u8) -> [u8; ID_LEN] {
    std::array::from_fn(|place| place as u8 ^ start)
}

/// What every rank of `came` gets from a start of `size` ranks that has `id`; files go when all have it.
fn start(
    path: &Path,
    size: usize,
    came: &[usize],
    id: [u8; ID_LEN],
    limit: Duration,
) -> Vec<Result<[u8; ID_LEN], String>> {
    let met = Barrier::new(came.len());
    let rank = |rank| {
        let world = World::new(rank, size, 1).unwrap();
        let result = match rank {
            0 => lead(path, world, &id, limit).map(|own| (id, own)),
            _ => follow(path, world, limit),
        };
        met.wait();
        result.map(|(id, _own)| id)
    };
    let rank = &rank;
    thread::scope(|scope| {
        // Followers first.
        let ranks: Vec<_> = came.iter().rev().map(|&number| scope.spawn(move || rank(number))).collect();
        ranks.into_iter().rev().map(|rank| rank.join().unwrap()).collect()
    })
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn ranks_meet_by_files_that_are_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nccl-job.id");
    for size in [1, 2, 5] {
        let all: Vec<_> = (0..size).collect();
        assert_eq!(start(&path, size, &all, id(1), LONG), vec![Ok(id(1)); size]);
        assert_eq!(files(folder.path()), [""; 0]);
    }
}

/// Everything is left as it is just before the ranks of a start join: its files stay.
fn killed(path: &Path, size: usize) {
    thread::scope(|scope| {
        for rank in 0..size {
            let world = World::new(rank, size, 1).unwrap();
            scope.spawn(move || match rank {
                0 => std::mem::forget(lead(path, world, &id(9), LONG).unwrap()),
                _ => std::mem::forget(follow(path, world, LONG).unwrap()),
            });
        }
    });
}

#[test]
fn what_a_killed_start_has_left_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nccl-ranks.id");
    for (before, size) in [(3, 3), (3, 2), (2, 3)] {
        killed(&path, before);
        let left = files(folder.path()).len();
        assert!(left >= before, "{left}");
        let all: Vec<_> = (0..size).collect();
        assert_eq!(start(&path, size, &all, id(1), LONG), vec![Ok(id(1)); size]);
        // Those of ranks that there no longer are stay.
        let left = files(folder.path());
        assert_eq!(left.len(), before.saturating_sub(size), "{left:?}");
    }
}

#[test]
fn the_id_of_an_earlier_start_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nccl-ranks.id");
    killed(&path, 2);
    let [found] = &start(&path, 2, &[1], id(1), SHORT)[..] else { panic!() };
    let error = found.as_ref().unwrap_err();
    assert!(error.contains("rank 0 did not come"), "{error}");
    // Its own file is gone, that of the killed rank 0 is not.
    assert_eq!(files(folder.path()), ["nccl-ranks.id"]);
}

#[test]
fn a_follower_of_an_earlier_start_is_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nccl-ranks.id");
    killed(&path, 3);
    let found = start(&path, 3, &[0, 1], id(1), SHORT);
    let error = found[0].as_ref().unwrap_err();
    assert!(error.contains("rank 2 did not come"), "{error}");
    assert!(found[1].is_err());
    assert_eq!(files(folder.path()), ["nccl-ranks.id.rank-2"]);
}

#[test]
fn ranks_that_do_not_come_are_named_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nccl-job.id");
    for found in start(&path, 4, &[0, 2], id(1), SHORT) {
        let error = found.unwrap_err();
        assert!(error.contains("rank 1, rank 3 did not come") && error.contains("share"), "{error}");
    }
    assert_eq!(files(folder.path()), [""; 0]);
    let many: Vec<_> = (1..20).collect();
    assert!(late(&path, &many, LONG).contains("rank 8 and 11 more did not come"));
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/nccl-job.id");
    for found in start(&path, 2, &[0, 1], id(1), LONG) {
        let error = found.unwrap_err();
        assert!(error.contains("missing/nccl-job.id"), "{error}");
    }
}

#[test]
fn a_later_start_keeps_its_file_when_an_earlier_one_ends() {
    let folder = tempfile::tempdir().unwrap();
    let [earlier, later] = [(); 2].map(|()| OwnFile::new(folder.path().join("nccl-job.id")));
    earlier.write(&[]).unwrap();
    later.write(&[]).unwrap();
    drop(earlier);
    assert_eq!(files(folder.path()), ["nccl-job.id"]);
    drop(later);
    assert_eq!(files(folder.path()), [""; 0]);
}
