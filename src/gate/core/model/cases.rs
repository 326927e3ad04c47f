//! The behaviours of the gate's core that matter most, one case each.

use std::{sync::Arc, task::Waker, time::Duration};

use super::{Pair, woken::Woken};
use crate::gate::core::{
    Applicant, Contention, Core, Decision, Knowledge, Nanos, QueueKey, RefusedRequest,
    TrackedAttempt,
    queue::{Asks, MAX_ASKS_PER_WINDOW, MAX_QUEUE_WALKED},
    time::{MILLISECOND as MS, SECOND},
};

#[test]
fn an_estimate_that_was_far_too_high_does_not_overflow_the_model() {
    let (mut core, now) = paced();
    let huge = goes(&mut core, now, 1e12);
    core.bucket.on_accepted(now, &huge);
    core.bucket.on_ended(now, &huge, Some(0.0));
    core.bucket.on_ended(now, &huge, Some(0.0));
    let later = now + SECOND;
    assert!(core.bucket.closed_for(later).is_some_and(|closed| closed < 0));
    assert!(matches!(arrives(&mut core, later, 1.0, 0, 0), Decision::Go(_)));
}

#[test]
fn an_attempt_that_came_to_nothing_leaves_no_wait_behind() {
    let (mut core, now) = paced();
    // An hour's worth, answered with an error about the request.
    let sent = goes(&mut core, now, 360_000.0);
    core.bucket.on_cancelled(&sent);
    assert!(matches!(arrives(&mut core, now, 1.0, 0, SECOND), Decision::Go(_)));
}

#[test]
fn a_refusal_adds_what_was_sent_after_it() {
    let (mut core, now) = paced();
    let refused = goes(&mut core, now, 0.0);
    goes(&mut core, now, 100.0);
    refuse(&mut core, now, &refused, Some(400), 0);
    // The level of 100 that follows takes a second to drain.
    assert_eq!(closed_ms(&core, now), Some(1_400));
}

#[test]
fn a_request_that_will_have_given_up_is_not_waited_for() {
    let (mut core, now) = paced();
    goes(&mut core, now, 100.0);
    let mut waits = |cost, rank, within| {
        let decision = arrives(&mut core, now, cost, rank, within * MS);
        matches!(decision, Decision::Wait { .. })
    };
    assert!(waits(150.0, 1, 1_200), "its turn comes in a second");
    assert!(waits(200.0, 0, 5_000), "now that comes in three");
    // Three seconds plus a quarter for expected urgent requests, not four and a half.
    assert!(!waits(100.0, 1, 3_800));
    assert!(waits(100.0, 1, 4_600));
}

#[test]
fn in_a_long_queue_all_are_waited_for() {
    for (others, waits) in [(MAX_QUEUE_WALKED - 2, true), (MAX_QUEUE_WALKED - 1, false)] {
        let (mut core, now) = paced();
        goes(&mut core, now, 100.0);
        arrives(&mut core, now, 150.0, 1, 1_200 * MS);
        arrives(&mut core, now, 200.0, 0, 5 * SECOND);
        for _ in 0..others {
            core.on_patient_arrival(now, &applicant(now, 0.0, 0, 5 * SECOND), None);
        }
        let decision = arrives(&mut core, now, 100.0, 1, 4_600 * MS);
        assert_eq!(matches!(decision, Decision::Wait { .. }), waits, "behind {others} more");
    }
}

#[test]
fn a_burst_after_a_pause_spills_by_the_queue_that_it_makes() {
    let (mut core, now) = paced();
    let now = now + 60 * SECOND;
    assert!(core.is_idle(now), "they all pass unasked");
    let refused: Vec<_> = (0..14).map(|_| core.on_untracked_refusal(now, 100.0, 0)).collect();
    let again = |attempt: &TrackedAttempt| refuse(&mut core, now, attempt, Some(500), 4 * SECOND);
    let waits = refused.iter().map(again).filter(Option::is_some).count();
    // Half a second, and then one after the other.
    assert_eq!(waits, 4, "the others need not wait to know it");
}

#[test]
fn a_refused_request_goes_back_to_the_place_of_its_arrival() {
    let (mut core, now) = paced();
    let now = now + 60 * SECOND;
    assert!(core.is_idle(now));
    let arrives_later = core.on_untracked_refusal(now + 10 * MS, 1.0, 0);
    let second = refuse(&mut core, now + 40 * MS, &arrives_later, Some(500), 4 * SECOND);
    let arrives_first = core.on_untracked_refusal(now, 1.0, 0);
    let first = refuse(&mut core, now + 50 * MS, &arrives_first, Some(490), 4 * SECOND);
    assert!(first.expect("it waits") < second.expect("it waits"), "whose refusal came last");
}

#[test]
fn a_long_hint_is_asked_again_and_believed_when_it_is_confirmed() {
    let (mut core, now) = paced();
    let sent = goes(&mut core, now, 10.0);
    refuse(&mut core, now, &sent, Some(9_000), 0);
    assert_eq!(core.evidence(now).0.knowledge(), Knowledge::Doubting);
    let mut asked = Vec::new();
    while core.evidence(now).0.knowledge() == Knowledge::Doubting {
        let again = core.bucket.next_attempt_at();
        let sent = goes(&mut core, again, 10.0);
        refuse(&mut core, again, &sent, Some((now + 9 * SECOND - again) / MS), 0);
        asked.push(again - now);
    }
    assert!(asked.len() <= 2 && asked.iter().all(|after| *after < SECOND), "{asked:?}");
    assert_eq!(core.bucket.closed_for(now).map(|closed| (closed + MS / 2) / MS), Some(9_000));
}

#[test]
fn before_anything_was_measured_the_longest_hint_is_believed() {
    let mut core = Core::new(None, Contention::Yield);
    let refused: Vec<_> = (0..14).map(|_| core.on_untracked_refusal(0, 100.0, 0)).collect();
    let now = 30 * MS;
    let again = |attempt: &TrackedAttempt| refuse(&mut core, now, attempt, Some(5_000), 4 * SECOND);
    assert_eq!(refused.iter().find_map(again), None, "all spill at once");
    assert_eq!(closed_ms(&core, now), Some(4_985), "half a round trip ago");
}

#[test]
fn refusals_that_were_expected_count_neither_as_asks_nor_for_a_drought() {
    let (mut core, start) = paced();
    let sent = goes(&mut core, start, 400.0);
    core.bucket.on_accepted(start, &sent);
    // A request takes a second to drain, more than the hints of the last refusals.
    let (place, deadline) = (waits_patiently(&mut core, start), start + 60 * SECOND);
    let mut asked = 0_usize;
    for tenth in 1..40 {
        let now = start + tenth * SECOND / 10;
        if let Decision::Go(sent) = core.on_turn(now, place, deadline) {
            // The level is as modelled.
            let hint = Duration::from_nanos((start + 4 * SECOND - now).unsigned_abs());
            let refused =
                RefusedRequest { hint: Some(hint), is_patient: true, ..refusal(None, deadline) };
            assert_eq!(core.on_refused(now, &sent, &refused), Ok(place));
            asked += 1;
        }
    }
    assert!(asked > MAX_ASKS_PER_WINDOW, "the model is checked: {asked}");
    assert_eq!(core.evidence(start + 4 * SECOND).0.knowledge(), Knowledge::Measured);
    assert!(matches!(core.on_turn(start + 4 * SECOND, place, deadline), Decision::Go(_)));
}

#[test]
fn a_refusal_is_expected_if_the_previous_one_was_known_when_the_attempt_was_made() {
    let (mut core, now) = paced();
    let first = goes(&mut core, now, 0.0);
    let second = goes(&mut core, now + MS, 0.0);
    let place = second.place;
    let mut is_expected = |at, attempt: &TrackedAttempt, hint_ms| {
        let hint = Some(Duration::from_millis(hint_ms));
        core.bucket.on_refused(at, attempt, hint, 0.0).was_expected
    };
    assert!(!is_expected(now + 10 * MS, &first, 250), "it was its turn");
    assert!(!is_expected(now + 11 * MS, &second, 249), "it was under way");
    let third = core.bucket.on_sent(now + 12 * MS, place, Asks::NONE, 0.0);
    let hint = Some(Duration::from_millis(238));
    assert!(core.bucket.on_refused(now + 22 * MS, &third, hint, 0.0).was_expected);
}

#[test]
fn a_request_that_would_not_wait_does_not_check_a_hint_that_was_expected() {
    let (mut core, start) = paced();
    goes(&mut core, start, 400.0);
    let probe_at = core.bucket.next_attempt_at();
    let sent = goes(&mut core, probe_at, 10.0);
    refuse(&mut core, probe_at, &sent, Some(3_700), 0);
    let again = core.bucket.next_attempt_at();
    assert!(again < probe_at + SECOND / 2, "for a request that waits");
    let decision = arrives(&mut core, again, 10.0, 0, 0);
    assert!(matches!(decision, Decision::Spill(_)), "{decision:?}");
    let place = waits(&mut core, again, 10.0, 9 * SECOND).0;
    let decision = core.on_turn(again, place, again + 9 * SECOND);
    assert!(matches!(decision, Decision::Go(_)), "{decision:?}");
}

#[test]
fn an_arrival_does_not_move_an_attempt_that_a_waiter_sleeps_for() {
    let (mut core, now) = paced();
    goes(&mut core, now, 200.0);
    waits(&mut core, now, 10.0, 9 * SECOND);
    let attempt_at = core.bucket.next_attempt_at();
    for _ in 0..200 {
        let decision = arrives(&mut core, now, 0.0, 1, 0);
        assert!(matches!(decision, Decision::Spill(_)), "{decision:?}");
    }
    assert_eq!(core.bucket.next_attempt_at(), attempt_at, "it would wake no waiter");
}

#[test]
fn a_refusal_that_was_decided_earlier_and_comes_later_moves_no_level() {
    let (mut core, now) = paced();
    let first = goes(&mut core, now, 10.0);
    let later = core.bucket.next_attempt_at().max(now + 100 * MS);
    let second = goes(&mut core, later, 10.0);
    refuse(&mut core, later, &second, Some(300), 0);
    let known = core.bucket.closed_for(later);
    assert!(refuse(&mut core, later, &first, Some(2_000), SECOND).is_some(), "it waits again");
    assert_eq!(core.bucket.closed_for(later), known);
}

#[test]
fn a_long_hint_is_refuted_by_an_admission() {
    let (mut core, now) = paced();
    let sent = goes(&mut core, now, 10.0);
    refuse(&mut core, now, &sent, Some(9_000), 0);
    let again = core.bucket.next_attempt_at();
    let sent = goes(&mut core, again, 10.0);
    core.bucket.on_accepted(again + SECOND, &sent);
    let now = again + SECOND;
    assert_eq!(core.evidence(now).0.knowledge(), Knowledge::Measured);
    assert!(core.bucket.closed_for(now).is_some_and(|closed| closed < SECOND));
    let sent = goes(&mut core, now, 10.0);
    refuse(&mut core, now, &sent, Some(9_000), 0);
    assert_eq!(core.evidence(now).0.knowledge(), Knowledge::Doubting, "the next one is no better");
}

#[test]
fn hints_that_are_always_the_same_are_taken_for_none() {
    let (mut core, mut now) = paced();
    for _ in 0..6 {
        let sent = goes(&mut core, now, 10.0);
        refuse(&mut core, now, &sent, Some(5_000), 0);
        now = core.bucket.next_attempt_at();
    }
    assert_eq!(core.evidence(now).0.knowledge(), Knowledge::Doubting);
    let sent = goes(&mut core, now, 10.0);
    core.bucket.on_accepted(now, &sent);
    let now = now.max(core.bucket.next_attempt_at());
    let sent = goes(&mut core, now, 10.0);
    refuse(&mut core, now, &sent, Some(5_000), 0);
    assert!(core.bucket.closed_for(now).is_some_and(|closed| closed < SECOND));
}

#[test]
fn when_nothing_is_admitted_for_long_all_spill_at_once_but_for_one_a_second() {
    let (mut core, start) = paced();
    let (mut asked, mut waited) = (0, 0);
    for tenth in 0..150 {
        let now = start + tenth * SECOND / 10;
        match arrives(&mut core, now, 10.0, 0, 4 * SECOND) {
            Decision::Go(sent) => {
                asked += u32::from(tenth >= 50);
                refuse(&mut core, now, &sent, None, 0);
            }
            // The caller gives up.
            Decision::Wait { place, .. } => {
                waited += u32::from(tenth >= 50);
                core.on_left(place);
            }
            Decision::Spill(_) => {}
        }
    }
    assert_eq!(core.evidence(start + 15 * SECOND).0.knowledge(), Knowledge::Outage);
    assert_eq!(waited, 0);
    assert!((8..=40).contains(&asked), "{asked} in ten seconds");
}

#[test]
fn waiting_requests_spill_when_a_refusal_makes_them_too_late() {
    let (mut core, now) = paced();
    let refused = goes(&mut core, now, 50.0);
    let (hasty, looks) = waits(&mut core, now, 10.0, 3 * SECOND / 2);
    let (lasting, lasting_looks) = waits(&mut core, now, 10.0, 9 * SECOND);
    refuse(&mut core, now, &refused, Some(2_000), 0);
    core.take_wakers(now).wake();
    assert!(looks.get() && !lasting_looks.get());
    let later = now + MS;
    assert!(matches!(core.on_turn(later, hasty, now + 3 * SECOND / 2), Decision::Spill(_)));
    core.take_wakers(later).wake();
    assert!(lasting_looks.get(), "it is the next one now");
    let decision = core.on_turn(later, lasting, now + 9 * SECOND);
    assert!(matches!(decision, Decision::Wait { .. }), "{decision:?}");
}

#[test]
fn a_low_rank_counts_the_urgent_requests_that_are_to_be_expected() {
    let waits_behind = |rank| {
        let (mut core, start) = paced();
        let mut now = start;
        // As much as drains, for ten seconds.
        for _ in 0..50 {
            now += SECOND / 5;
            match arrives(&mut core, now, 20.0, 0, 0) {
                Decision::Go(sent) => core.bucket.on_accepted(now, &sent),
                decision => panic!("it is open, not {decision:?}"),
            }
        }
        goes(&mut core, now, 300.0);
        goes_early(&mut core, now);
        let decision = arrives(&mut core, now, 10.0, rank, 4 * SECOND);
        matches!(decision, Decision::Wait { .. })
    };
    assert!(waits_behind(0), "in about three seconds");
    assert!(!waits_behind(1), "in more than four, since urgent ones go first");
}

#[test]
fn where_refusals_are_slow_requests_leave_in_time_to_be_sent_elsewhere() {
    let (mut core, now) = paced();
    let slow = goes(&mut core, now, 10.0);
    let now = now + 2 * SECOND;
    refuse(&mut core, now, &slow, Some(500), 0);
    goes(&mut core, now, 300.0);
    goes_early(&mut core, now);
    let place = waits(&mut core, now, 10.0, 4 * SECOND).0;
    let Decision::Wait { until, .. } = core.on_turn(now, place, now + 4 * SECOND) else {
        panic!("it has two seconds")
    };
    assert!(until <= now + 2 * SECOND, "the next refusal may take two seconds as well");
    assert!(matches!(core.on_turn(now + 2 * SECOND, place, now + 4 * SECOND), Decision::Spill(_)));
    let decision = arrives(&mut core, now, 10.0, 0, 2 * SECOND);
    assert!(matches!(decision, Decision::Spill(_)), "it has no time at all: {decision:?}");
}

#[test]
fn a_patient_request_waits_whatever_is_predicted() {
    let (mut core, now) = paced();
    let sent = goes(&mut core, now, 300.0);
    core.bucket.on_accepted(now, &sent);
    waits(&mut core, now, 50.0, 9 * SECOND);
    let applicant = applicant(now, 10.0, 0, 3_200 * MS);
    assert!(
        matches!(core.on_arrival(now, &applicant), Decision::Spill(_)),
        "its turn comes too late"
    );
    let decision = core.on_patient_arrival(now, &applicant, None);
    let Decision::Wait { place, .. } = decision else { panic!("{decision:?}") };
    let Decision::Wait { until, .. } = core.on_turn(now, place, applicant.deadline) else {
        panic!("it has nowhere else to go")
    };
    assert_eq!(until, applicant.deadline, "nothing is kept back to send it there");
}

#[test]
fn a_patient_request_leaves_when_the_ptu_reopens_too_late() {
    let (mut core, now) = paced();
    let refused = goes(&mut core, now, 100.0);
    let applicant = applicant(now, 10.0, 0, 2 * SECOND);
    let decision = core.on_patient_arrival(now, &applicant, None);
    let Decision::Wait { place, .. } = decision else { panic!("{decision:?}") };
    refuse(&mut core, now, &refused, Some(2_500), 0);
    assert!(matches!(core.on_turn(now, place, applicant.deadline), Decision::Spill(_)));
}

#[test]
fn a_patient_request_waits_where_an_admission_refuted_a_long_hint() {
    let (mut core, now) = paced();
    let sent = goes(&mut core, now, 3_000.0);
    // As the model predicted.
    refuse(&mut core, now, &sent, Some(1), 0);
    let sent = goes(&mut core, now + 2 * MS, 3_000.0);
    core.bucket.on_accepted(now + 2 * MS, &sent);
    let early = core.bucket.next_attempt_at();
    let sent = goes(&mut core, early, 10.0);
    refuse(&mut core, early, &sent, Some(29_600), 0);
    let applicant = |now| applicant(now, 10.0, 0, 2 * SECOND);
    let decision = core.on_patient_arrival(early, &applicant(early), None);
    assert!(matches!(decision, Decision::Spill(_)), "it is known to be closed: {decision:?}");
    let again = early + SECOND;
    let sent = goes(&mut core, again, 10.0);
    core.bucket.on_accepted(again, &sent);
    assert!(core.bucket.next_attempt_at() > again);
    let decision = core.on_patient_arrival(again, &applicant(again), None);
    assert!(matches!(decision, Decision::Wait { .. }), "it is open: {decision:?}");
}

#[test]
fn no_refusal_makes_a_patient_request_give_up() {
    let (mut core, now) = paced();
    let refused = goes(&mut core, now, 50.0);
    waits_patiently(&mut core, now);
    let applicant = applicant(now, 10.0, 0, 1_100 * MS);
    let decision = core.on_patient_arrival(now, &applicant, None);
    let Decision::Wait { place, .. } = decision else { panic!("{decision:?}") };
    let woken = Arc::<Woken>::default();
    core.wake_with(place, &Waker::from(Arc::clone(&woken)));
    // The previous attempt takes as long as it did.
    refuse(&mut core, now, &refused, Some(1_000), 0);
    core.take_wakers(now).wake();
    assert!(!woken.get(), "it has nowhere else to go");
}

#[test]
fn a_patient_request_comes_back_to_its_old_place() {
    let (mut core, now) = paced();
    goes(&mut core, now, 100.0);
    let old = waits(&mut core, now, 10.0, 4 * SECOND).0;
    let other = waits(&mut core, now, 10.0, 4 * SECOND).0;
    core.on_left(old);
    core.on_patient_arrival(now, &applicant(now, 10.0, 0, 4 * SECOND), Some(old));
    let opens = core.bucket.next_attempt_at();
    assert!(matches!(core.on_turn(opens, other, now + 4 * SECOND), Decision::Wait { .. }));
    assert!(matches!(core.on_turn(opens, old, now + 4 * SECOND), Decision::Go(_)));
}

#[test]
fn a_request_that_used_up_its_attempts_lets_others_try_and_then_goes_first_again() {
    let (mut core, start) = paced();
    let (first, deadline) = (waits_patiently(&mut core, start), start + 60 * SECOND);
    let second = waits_patiently(&mut core, start);
    let mut now = start;
    for _ in 0..MAX_ASKS_PER_WINDOW {
        now = now.max(core.bucket.next_attempt_at());
        let Decision::Go(sent) = core.on_turn(now, first, deadline) else { panic!("it may ask") };
        let refused = RefusedRequest { is_patient: true, ..refusal(Some(5), deadline) };
        assert_eq!(core.on_refused(now, &sent, &refused), Ok(first));
        now += 10 * MS;
    }
    now = now.max(core.bucket.next_attempt_at());
    let Decision::Wait { until, .. } = core.on_turn(now, first, deadline) else {
        panic!("not now")
    };
    assert!((start + 4 * SECOND..=now + 4 * SECOND).contains(&until), "it needs no waker");
    let Decision::Go(sent) = core.on_turn(now, second, deadline) else { panic!("it may ask") };
    let refused = RefusedRequest { is_patient: true, ..refusal(Some(5), deadline) };
    assert_eq!(core.on_refused(now, &sent, &refused), Ok(second));
    let then = until.max(core.bucket.next_attempt_at());
    assert!(matches!(core.on_turn(then, second, deadline), Decision::Wait { .. }));
    assert!(matches!(core.on_turn(then, first, deadline), Decision::Go(_)));
}

#[test]
fn a_request_that_used_up_its_attempts_spills_when_the_ptu_is_open_and_no_other_waits() {
    let (mut core, start) = paced();
    goes(&mut core, start, 100.0);
    let (place, mut now) = (waits(&mut core, start, 100.0, 9 * SECOND).0, start);
    let deadline = start + 9 * SECOND;
    for _ in 0..MAX_ASKS_PER_WINDOW {
        now = now.max(core.bucket.next_attempt_at());
        let Decision::Go(sent) = core.on_turn(now, place, deadline) else { panic!("it may ask") };
        assert_eq!(core.on_refused(now, &sent, &refusal(Some(5), deadline)), Ok(place));
        now += 10 * MS;
    }
    now = now.max(core.bucket.next_attempt_at());
    assert!(now < start + 3 * SECOND, "it would have to wait for a second");
    assert!(matches!(core.on_turn(now, place, deadline), Decision::Spill(_)));
}

#[test]
fn an_answer_that_reports_a_lower_level_lowers_the_model() {
    let (mut core, now) = of_ten_seconds();
    let sent = goes(&mut core, now, 200.0);
    let modelled = core.bucket.closed_for(now).expect("it is closed");
    // 5 % of 10 s below the limit before it arrived, plus its own two seconds.
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

#[test]
fn how_full_the_ptu_is_is_known_once_its_depth_is() {
    let (core, now) = paced();
    assert_eq!(core.bucket.utilization(now), None);
    let (mut core, now) = of_ten_seconds();
    goes(&mut core, now, 200.0);
    let closed = core.bucket.closed_for(now).expect("it is closed") as f64 / 1e9;
    let share = core.bucket.utilization(now).expect("its depth is known");
    assert!((share - (1.0 + closed / 10.0)).abs() < 1e-6, "{share} with {closed}");
    assert!(share > 1.15, "two seconds of ten on top: {share}");
    let empty = core.bucket.utilization(now + 60 * SECOND);
    assert!(empty.is_none_or(|share| share == 0.0), "{empty:?}");
}

#[test]
fn a_request_is_rejected_unweighed_only_where_no_cost_would_save_it() {
    for max_wait in [0, 200 * MS, SECOND, 3 * SECOND, 9 * SECOND] {
        let before = || {
            let (mut core, now) = paced();
            let sent = goes(&mut core, now, 300.0);
            core.bucket.on_accepted(now, &sent);
            waits(&mut core, now, 50.0, 9 * SECOND);
            (core, now)
        };
        let (mut core, now) = before();
        let rejected = core.rejects_any(now, 0, now + max_wait);
        let spills = |cost: f64| {
            let (mut core, now) = before();
            matches!(arrives(&mut core, now, cost, 0, max_wait), Decision::Spill(_))
        };
        let costs = [0.0, 1.0, 10.0, 1e3, 1e9];
        assert_eq!(rejected.is_some(), costs.into_iter().all(spills), "{max_wait}");
        assert_eq!(rejected.is_some(), max_wait < 3_100 * MS, "{max_wait}: its turn is later");
    }
    let mut core = Core::new(None, Contention::Yield);
    assert_eq!(core.rejects_any(0, 0, 0), None, "nothing is known yet");
}

/// A [`paced`] core whose refusals showed that the bucket is ten seconds deep.
fn of_ten_seconds() -> (Core, Nanos) {
    let (mut core, now) = paced();
    for _ in 0..3 {
        core.bucket.on_refusal_utilization(1.02, Duration::from_millis(200));
    }
    (core, now)
}

/// A core with a measured rate of 100 a second whose PTU is at the limit, with no round trip.
fn paced() -> (Core, Nanos) {
    let mut pair = Pair::new(Contention::Yield);
    pair.learn(0).expect("nothing unusual happens");
    (pair.core, pair.now)
}

const fn applicant(now: Nanos, cost: f64, rank: u8, max_wait: Nanos) -> Applicant {
    Applicant { cost, rank, deadline: now + max_wait }
}

fn arrives(core: &mut Core, now: Nanos, cost: f64, rank: u8, max_wait: Nanos) -> Decision {
    core.on_arrival(now, &applicant(now, cost, rank, max_wait))
}

fn goes(core: &mut Core, now: Nanos, cost: f64) -> TrackedAttempt {
    match arrives(core, now, cost, u8::MAX, 0) {
        Decision::Go(sent) => sent,
        decision => panic!("it is open, not {decision:?}"),
    }
}

/// The first attempt long after a refusal checks the model, whatever that predicts.
fn goes_early(core: &mut Core, now: Nanos) {
    goes(core, now, 0.0);
    assert!(core.bucket.next_attempt_at() > now, "its silence is waited for");
}

/// Makes a request wait, and reports whether it was woken.
fn waits(core: &mut Core, now: Nanos, cost: f64, max_wait: Nanos) -> (QueueKey, Arc<Woken>) {
    let woken = Arc::<Woken>::default();
    match arrives(core, now, cost, 0, max_wait) {
        Decision::Wait { place, .. } => {
            core.wake_with(place, &Waker::from(Arc::clone(&woken)));
            (place, woken)
        }
        decision => panic!("it is closed, not {decision:?}"),
    }
}

/// A request that has a minute, and nowhere else to go.
fn waits_patiently(core: &mut Core, now: Nanos) -> QueueKey {
    if core.bucket.next_attempt_at() <= now {
        goes(core, now, 100.0);
    }
    match core.on_patient_arrival(now, &applicant(now, 100.0, 0, 60 * SECOND), None) {
        Decision::Wait { place, .. } => place,
        decision => panic!("it is closed, not {decision:?}"),
    }
}

const fn refusal(hint_ms: Option<u64>, deadline: Nanos) -> RefusedRequest {
    let hint = match hint_ms {
        Some(ms) => Some(Duration::from_millis(ms)),
        None => None,
    };
    RefusedRequest { hint, deadline, draw: 0.0, is_patient: false }
}

/// Refuses `attempt`, which waits again for up to `max_wait`.
fn refuse(
    core: &mut Core,
    now: Nanos,
    attempt: &TrackedAttempt,
    hint_ms: Option<Nanos>,
    max_wait: Nanos,
) -> Option<QueueKey> {
    let hint_ms = hint_ms.map(Nanos::unsigned_abs);
    core.on_refused(now, attempt, &refusal(hint_ms, now + max_wait)).ok()
}

fn closed_ms(core: &Core, now: Nanos) -> Option<Nanos> {
    core.bucket.closed_for(now).map(|closed| (closed + MS / 2) / MS)
}
