use super::*;
use crate::parallel::watch::Progress;

const STEP: f64 = 48.0;

/// What `rank` tells in a step, standing still for so many seconds.
fn beat(rank: usize, still: f64) -> Heartbeat {
    let progress = Progress::default();
    progress.enter(Phase::Step);
    let standing = progress.standing();
    let (pid, host) = (100 + rank as u32, "node".to_owned());
    Heartbeat { job: None, rank, pid, host, beat: 9, standing, still, longest: 0.0, end: None }
}

/// In collective number `collectives`.
fn inside(rank: usize, still: f64, collectives: u64) -> Heartbeat {
    let mut beat = beat(rank, still);
    (beat.standing.inside, beat.standing.collectives) = (true, collectives);
    beat
}

/// The others, each alive.
fn alive(beats: impl IntoIterator<Item = Heartbeat>) -> Vec<Other> {
    let second = Duration::from_secs(1);
    beats.into_iter().map(|beat| Other { rank: beat.rank, told: Some((beat, second)) }).collect()
}

fn found(own: &Heartbeat, others: &[Other]) -> Option<(usize, TroubleKind)> {
    let hour = Duration::from_secs(3600);
    judge(own, hour, others, &Limits::default()).map(|trouble| (trouble.rank, trouble.kind))
}

fn stuck(rank: usize, seconds: f64) -> Option<(usize, TroubleKind)> {
    Some((rank, TroubleKind::Stuck(Duration::from_secs_f64(seconds))))
}

#[test]
fn a_dead_or_hung_rank_in_a_step_is_found_within_a_minute() {
    let Limits { beat, patience, silent, step, .. } = Limits::default();
    let minute = Duration::from_secs(60);
    assert!(patience + silent + 3 * beat < minute && step + 5 * beat < minute);
}

#[test]
fn ranks_that_move_are_left_alone() {
    let others = || alive([beat(1, 1.0), inside(2, 40.0, 7)]);
    assert_eq!(found(&inside(0, 40.0, 8), &others()), None);
    assert_eq!(found(&beat(0, 40.0), &others()), None);
}

#[test]
fn a_silent_rank_is_blamed_by_whoever_waits() {
    let mut others = alive([inside(1, 20.0, 8), beat(2, 1.0)]);
    others[1].told.as_mut().unwrap().1 = Duration::from_secs(31);
    let silent = Some((2, TroubleKind::Silent(Duration::from_secs(31))));
    assert_eq!(found(&inside(0, 20.0, 8), &others), silent);
    // On a GPU, one waits for the device and not in the collective.
    assert_eq!(found(&beat(0, 20.0), &others), silent);
    // A save goes on; a rank that has waited for a moment only has not looked.
    let mut saving = beat(0, 20.0);
    saving.standing.phase = Phase::Saving;
    assert_eq!(found(&saving, &others), None);
    assert_eq!(found(&inside(0, 5.0, 8), &others), None);
}

#[test]
fn a_hung_rank_is_blamed_by_whoever_waits() {
    let others = alive([inside(1, STEP, 8), beat(2, STEP)]);
    assert_eq!(found(&inside(0, STEP, 8), &others), stuck(2, STEP));
    // All wait for their devices: the one that is behind hangs.
    let ahead = |rank, collectives| {
        let mut beat = beat(rank, STEP);
        beat.standing.collectives = collectives;
        beat
    };
    let others = alive([ahead(1, 8), ahead(2, 6), ahead(3, 7)]);
    assert_eq!(found(&ahead(0, 8), &others), stuck(2, STEP));
    // It says so itself, if a little later.
    let others = alive([ahead(0, 8), ahead(1, 8)]);
    assert_eq!(found(&ahead(2, 6), &others), None);
    let mut later = ahead(2, 6);
    later.still += 1.0;
    assert_eq!(found(&later, &others), stuck(2, STEP + 1.0));
}

#[test]
fn saving_and_validating_may_last() {
    for phase in [Phase::Saving, Phase::Validating] {
        let busy = |still| {
            let mut beat = beat(1, still);
            beat.standing.phase = phase;
            beat
        };
        assert_eq!(found(&inside(0, 1700.0, 8), &alive([busy(1700.0)])), None);
        assert_eq!(found(&inside(0, 1800.0, 8), &alive([busy(1801.0)])), stuck(1, 1801.0));
    }
}

#[test]
fn whoever_ended_is_blamed_with_its_words() {
    let with = |end| {
        let mut beat = beat(1, 0.0);
        beat.end = Some(end);
        alive([beat, inside(2, 20.0, 8)])
    };
    let failed = found(&inside(0, 20.0, 8), &with(End::Failed("no space".into())));
    assert_eq!(failed, Some((1, TroubleKind::Failed("no space".into()))));
    assert_eq!(found(&inside(0, 20.0, 8), &with(End::Done)), Some((1, TroubleKind::Ended)));
    // Whoever is not held up comes to its own end.
    assert_eq!(found(&inside(0, 1.0, 8), &with(End::Done)), None);
}

#[test]
fn whoever_never_starts_is_named() {
    let mut own = beat(0, 299.0);
    own.standing.phase = Phase::Joining;
    let others = [Other { rank: 1, told: None }];
    let late = |seconds| judge(&own, Duration::from_secs(seconds), &others, &Limits::default());
    assert_eq!(late(299), None);
    assert_eq!(late(300).unwrap().to_string(), "rank 1 has not started within 300 s");
}

#[test]
fn ranks_that_all_wait_for_each_other_end() {
    let others = alive([inside(1, STEP, 9), inside(2, STEP, 9)]);
    let locked = found(&inside(0, STEP, 8), &others);
    assert_eq!(locked, Some((0, TroubleKind::Locked(Duration::from_secs_f64(STEP)))));
    assert_eq!(found(&inside(0, 40.0, 8), &others), None);
}

#[test]
fn trouble_names_rank_process_machine_and_phase() {
    let trouble = judge(&inside(0, STEP, 8), Duration::ZERO, &alive([beat(1, STEP)]), &Limits::default());
    assert_eq!(
        trouble.unwrap().to_string(),
        "rank 1 (process 101 on node, training) makes no progress for 48 s: it hangs"
    );
}

/// A backward pass of all layers in one go takes minutes on a CPU.
#[test]
fn a_rank_may_take_as_long_as_it_often_does() {
    let slow = |still| Heartbeat { longest: 30.0, ..beat(1, still) };
    assert_eq!(found(&inside(0, 100.0, 8), &alive([slow(100.0)])), None);
    assert!(found(&inside(0, 130.0, 8), &alive([slow(130.0)])).is_some());
}

/// Where the others' files cannot be read, nothing is known of them.
#[test]
fn a_rank_that_sees_nobody_blames_nobody() {
    assert_eq!(found(&inside(0, 500.0, 8), &[]), None);
}
