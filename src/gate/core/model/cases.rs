//! What the gate's core does where it matters most, case by case.

use std::time::Duration;

use super::{Pair, SECOND};
use crate::gate::core::{Core, Decision, Nanos, TrackedAttempt};

#[test]
fn an_estimate_that_was_far_too_high_does_not_overflow_the_model() {
    let (mut core, now) = paced();
    let huge = core.on_untracked_refusal(now, 1e12, 0);
    core.bucket.on_accepted(now);
    // The refusal resets the level, and the correction comes after it.
    let probe = core.on_untracked_refusal(now, 0.0, 0);
    let key = core.on_refused(now, &probe, Duration::ZERO, true, now).expect("just in time");
    core.bucket.on_usage(&huge, 0.0);
    let later = now + SECOND;
    assert!(core.bucket.closed_for(later).is_some_and(|closed| closed < 0));
    assert!(matches!(core.on_turn(later, key, later), Decision::Go(_)));
    assert!(matches!(core.on_arrival(later, 1.0, 0, later), Decision::Go(_)));
}

#[test]
fn an_attempt_that_came_to_nothing_leaves_no_wait_behind() {
    let (mut core, now) = paced();
    // An hour's worth, answered with a complaint about the request.
    let sent = goes(&mut core, now, 360_000.0);
    core.bucket.on_cancelled(&sent);
    assert!(matches!(core.on_arrival(now, 1.0, 0, now + SECOND), Decision::Go(_)));
}

#[test]
fn a_refusal_adds_what_was_sent_after_it_unless_its_hint_knew_of_that() {
    // The level of 100 that follows the refused attempt takes a second to drain.
    for (hint, closed_for) in [(0, 1_000), (400, 1_400), (700, 700), (1_000, 1_000)] {
        let (mut core, now) = paced();
        let refused = goes(&mut core, now, 0.0);
        goes(&mut core, now, 100.0);
        core.on_refused(now, &refused, Duration::from_millis(hint), false, now);
        let closed = (core.bucket.closed_for(now).expect("it is closed") + MS / 2) / MS;
        assert_eq!(closed, closed_for, "after a hint of {hint} ms");
    }
}

#[test]
fn little_that_was_sent_after_a_refused_attempt_is_always_added() {
    let (mut core, now) = paced();
    let refused = goes(&mut core, now, 0.0);
    goes(&mut core, now, 9.0);
    core.on_refused(now, &refused, Duration::from_millis(200), false, now);
    assert_eq!(core.bucket.closed_for(now).map(|closed| (closed + MS / 2) / MS), Some(290));
}

#[test]
fn a_request_that_will_have_given_up_is_not_waited_for() {
    let (mut core, now) = paced();
    goes(&mut core, now, 100.0);
    let mut arrive = |cost, rank, within| {
        let decision = core.on_arrival(now, cost, rank, now + within * MS);
        matches!(decision, Decision::Wait { .. })
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
        core.on_arrival(now, 150.0, 1, now + 1_200 * MS);
        core.on_arrival(now, 200.0, 0, now + 5_000 * MS);
        for _ in 0..others {
            core.on_arrival(now, 0.0, 0, now + 5_000 * MS);
        }
        let decision = core.on_arrival(now, 1.0, 1, now + 3_200 * MS);
        assert_eq!(matches!(decision, Decision::Wait { .. }), waits, "behind {others} more");
    }
}

#[test]
fn a_request_that_comes_too_late_is_no_sign_of_a_standing_queue() {
    let (mut core, now) = paced();
    goes(&mut core, now, 1.0);
    let at = |ms: Nanos| now + 10 * MS + ms * MS;
    goes(&mut core, at(0), 1_000.0);
    for (ms, within) in [(0, 9_000), (5_000, 6_000)] {
        let decision = core.on_arrival(at(ms), 0.0, 0, at(ms + within));
        assert!(matches!(decision, Decision::Spill), "{decision:?}");
    }
    // The queue stood for five seconds and was cut by half, but now it is empty.
    assert!(matches!(core.on_arrival(at(10_000), 0.0, 0, at(9_999)), Decision::Go(_)));
    goes(&mut core, at(10_000), 150.0);
    let decision = core.on_arrival(at(10_000), 0.0, 0, at(14_000));
    assert!(matches!(decision, Decision::Wait { .. }), "cut again: {decision:?}");
}

#[test]
fn an_answer_that_reports_a_lower_level_lowers_the_model() {
    let (mut core, now) = of_ten_seconds();
    let sent = goes(&mut core, now, 200.0);
    let modelled = core.bucket.closed_for(now).expect("it is closed");
    // 5 % of 10 s below the limit before it came, with its two seconds on top.
    core.bucket.on_utilization(now, &sent, 0.95);
    let closed = core.bucket.closed_for(now).expect("it is closed");
    assert!(closed < modelled, "{closed} against {modelled}");
    assert!((closed - 1_500 * MS).abs() < 50 * MS, "{closed}");
}

#[test]
fn an_answer_that_reports_a_higher_level_is_left_to_the_next_refusal() {
    let (mut core, now) = of_ten_seconds();
    let sent = goes(&mut core, now, 200.0);
    let modelled = core.bucket.closed_for(now);
    core.bucket.on_utilization(now, &sent, 1.4);
    assert_eq!(core.bucket.closed_for(now), modelled);
}

/// A [`paced`] core whose refusals showed that the bucket is ten seconds deep.
fn of_ten_seconds() -> (Core, Nanos) {
    let (mut core, now) = paced();
    for _ in 0..3 {
        core.bucket.on_refusal_utilization(1.02, Duration::from_millis(200));
    }
    (core, now)
}

/// A core that trusts a rate of 100 a second, and its PTU at the limit, with no round trip.
fn paced() -> (Core, Nanos) {
    let mut pair = Pair::new();
    pair.learn(0).expect("nothing unusual happens");
    (pair.core, pair.now)
}

fn goes(core: &mut Core, now: Nanos, cost: f64) -> TrackedAttempt {
    match core.on_arrival(now, cost, 0, now) {
        Decision::Go(sent) => sent,
        decision => panic!("it is open, not {decision:?}"),
    }
}

const MS: Nanos = SECOND / 1_000;
