//! What the gate's core does where it matters most, told case by case.

use std::time::Duration;

use super::{Pair, SECOND};
use crate::gate::core::{Core, Nanos, Sent, Turn, Verdict};

#[test]
fn an_estimate_that_was_far_too_high_does_not_overflow_the_reckoning() {
    let (mut core, now) = paced();
    let huge = core.untracked(now, 1e12, 0);
    core.accepted(now);
    // The refusal resets the level, and the correction comes after it.
    let probe = core.untracked(now, 0.0, 0);
    let place = core.refused(now, &probe, Duration::ZERO, true, now).expect("just in time");
    core.finished(&huge, 0.0);
    let later = now + SECOND;
    assert!(core.closed_for(later).is_some_and(|closed| closed < 0));
    assert!(matches!(core.turn(later, place, later), Turn::Go(_)));
    assert!(matches!(core.arrive(later, 1.0, 0, later), Verdict::Go(_)));
}

#[test]
fn an_attempt_that_came_to_nothing_leaves_no_wait_behind() {
    let (mut core, now) = paced();
    // An hour's worth, answered with a complaint about the request.
    let sent = goes(&mut core, now, 360_000.0);
    core.gone(&sent);
    assert!(matches!(core.arrive(now, 1.0, 0, now + SECOND), Verdict::Go(_)));
}

#[test]
fn a_refusal_adds_what_was_sent_after_it_unless_its_hint_knew_of_that() {
    // The level of 100 that follows the refused attempt takes a second to drain.
    for (hint, closed_for) in [(0, 1_000), (400, 1_400), (700, 700), (1_000, 1_000)] {
        let (mut core, now) = paced();
        let refused = goes(&mut core, now, 0.0);
        goes(&mut core, now, 100.0);
        core.refused(now, &refused, Duration::from_millis(hint), false, now);
        let told = (core.closed_for(now).expect("it is closed") + MS / 2) / MS;
        assert_eq!(told, closed_for, "told to wait for {hint} ms");
    }
}

#[test]
fn little_that_was_sent_after_a_refused_attempt_is_always_added() {
    let (mut core, now) = paced();
    let refused = goes(&mut core, now, 0.0);
    goes(&mut core, now, 9.0);
    core.refused(now, &refused, Duration::from_millis(200), false, now);
    assert_eq!(core.closed_for(now).map(|closed| (closed + MS / 2) / MS), Some(290));
}

#[test]
fn who_will_have_given_up_is_not_waited_for() {
    let (mut core, now) = paced();
    goes(&mut core, now, 100.0);
    let mut arrive = |cost, rank, within| {
        let verdict = core.arrive(now, cost, rank, now + within * MS);
        matches!(verdict, Verdict::Wait(_))
    };
    assert!(arrive(150.0, 1, 1_200), "its turn comes in a second");
    assert!(arrive(200.0, 0, 5_000), "now that comes in three");
    // A little more than three seconds for caution, and not four and a half.
    assert!(!arrive(1.0, 1, 3_100));
    assert!(arrive(1.0, 1, 3_200));
}

#[test]
fn in_a_long_queue_all_are_waited_for() {
    for (others, waits) in [(62, true), (63, false)] {
        let (mut core, now) = paced();
        goes(&mut core, now, 100.0);
        core.arrive(now, 150.0, 1, now + 1_200 * MS);
        core.arrive(now, 200.0, 0, now + 5_000 * MS);
        for _ in 0..others {
            core.arrive(now, 0.0, 0, now + 5_000 * MS);
        }
        let verdict = core.arrive(now, 1.0, 1, now + 3_200 * MS);
        assert_eq!(matches!(verdict, Verdict::Wait(_)), waits, "behind {others} more");
    }
}

#[test]
fn a_request_that_comes_too_late_is_no_sign_of_a_standing_queue() {
    let (mut core, now) = paced();
    goes(&mut core, now, 1.0);
    let at = |ms: Nanos| now + 10 * MS + ms * MS;
    goes(&mut core, at(0), 1_000.0);
    for (ms, within) in [(0, 9_000), (5_000, 6_000)] {
        let verdict = core.arrive(at(ms), 0.0, 0, at(ms + within));
        assert!(matches!(verdict, Verdict::Spill), "{verdict:?}");
    }
    // The queue stood for five seconds and was cut by half, but now it is empty.
    assert!(matches!(core.arrive(at(10_000), 0.0, 0, at(9_999)), Verdict::Go(_)));
    goes(&mut core, at(10_000), 150.0);
    let verdict = core.arrive(at(10_000), 0.0, 0, at(14_000));
    assert!(matches!(verdict, Verdict::Wait(_)), "cut again: {verdict:?}");
}

#[test]
fn an_answer_that_tells_a_lower_level_lowers_the_reckoning() {
    let (mut core, now) = of_ten_seconds();
    let sent = goes(&mut core, now, 200.0);
    let reckoned = core.closed_for(now).expect("it is closed");
    // 5 % of 10 s below the limit before it came, with its two seconds on top.
    core.told(now, &sent, 0.95);
    let told = core.closed_for(now).expect("it is closed");
    assert!(told < reckoned, "{told} against {reckoned}");
    assert!((told - 1_500 * MS).abs() < 50 * MS, "{told}");
}

#[test]
fn an_answer_that_tells_a_higher_level_is_left_to_the_next_refusal() {
    let (mut core, now) = of_ten_seconds();
    let sent = goes(&mut core, now, 200.0);
    let reckoned = core.closed_for(now);
    core.told(now, &sent, 1.4);
    assert_eq!(core.closed_for(now), reckoned);
}

/// A [`paced`] core whose refusals have told that the bucket is ten seconds deep.
fn of_ten_seconds() -> (Core, Nanos) {
    let (mut core, now) = paced();
    for _ in 0..3 {
        core.measured(1.02, Duration::from_millis(200));
    }
    (core, now)
}

/// A core that trusts a rate of 100 a second, and its PTU at the rim, with no round trip.
fn paced() -> (Core, Nanos) {
    let mut pair = Pair::new();
    pair.learn(0).expect("nothing unusual happens");
    (pair.core, pair.now)
}

fn goes(core: &mut Core, now: Nanos, cost: f64) -> Sent {
    match core.arrive(now, cost, 0, now) {
        Verdict::Go(sent) => sent,
        verdict => panic!("it is open, not {verdict:?}"),
    }
}

const MS: Nanos = SECOND / 1_000;
