use super::*;

const SECOND: f64 = 1e6;
const MS: f64 = 1e3;
const LEAD: f64 = 500.0;
const START: f64 = 1_790_000_000_000_000.0;

/// A core with one caller, which knows nothing itself.
struct Gate {
    core: Core,
    now: f64,
}

impl Gate {
    /// A PTU that drains a request of 1,000 in 25 ms and is closed for 40 ms from `START` on.
    fn busy() -> Self {
        let mut gate = Self { core: Core::default(), now: START };
        let seed = Seed { closed: 40.0 * MS, rate: 40_000.0 };
        gate.core.call(gate.now, 0.0, &seed, &[]);
        gate
    }

    fn call(&mut self, step: Step) -> Option<Answer> {
        self.reply(step).answers.first().copied()
    }

    fn reply(&mut self, step: Step) -> Reply {
        self.core.call(self.now, 0.0, &Seed { closed: 0.0, rate: 0.0 }, &[step])
    }

    fn enter(&mut self, rank: u8, left: f64) -> Answer {
        let newcomer = Newcomer { rank, cost: 1_000.0, is_patient: false };
        self.call(Step::Enter { newcomer, left, lead: LEAD }).expect("an answer")
    }

    fn turn(&mut self, ticket: Ticket) -> Answer {
        self.call(Step::Turn { ticket, left: 4.0 * SECOND, lead: LEAD }).expect("an answer")
    }
}

fn ticket(rank: u8, answer: &Answer) -> Ticket {
    let Answer::Wait { order, .. } = *answer else { panic!("it does not wait: {answer:?}") };
    Ticket { rank, order, cost: 1_000.0, is_patient: false }
}

#[test]
fn a_request_is_permitted_ahead_of_its_turn_so_that_the_store_delays_nothing() {
    let mut gate = Gate::busy();
    let mut waits = gate.enter(0, 4.0 * SECOND);
    let ticket = ticket(0, &waits);
    let mut looks = 0;
    while let Answer::Wait { after, .. } = waits {
        gate.now += after + 2.0 * LEAD;
        waits = gate.turn(ticket);
        looks += 1;
    }
    let Answer::Go { after, grant } = waits else { panic!("{waits:?}") };
    assert!((1..5).contains(&looks), "it looked {looks} times in 40 ms");
    let sent_at = gate.now + LEAD + after;
    assert!((START + 40.0 * MS..START + 46.0 * MS).contains(&sent_at), "{}", sent_at - START);
    assert_eq!(grant.attempt.map(|attempt| attempt.at.floor()), Some(sent_at.floor()));
}

#[test]
fn urgent_requests_go_first_and_equals_in_the_order_of_their_arrival() {
    let mut gate = Gate::busy();
    let mut tickets = Vec::new();
    for rank in [1, 1, 0, 0] {
        gate.now += MS;
        tickets.push(ticket(rank, &gate.enter(rank, 4.0 * SECOND)));
    }
    let mut gone = Vec::new();
    while gone.len() < tickets.len() {
        gate.now += MS;
        for index in [3, 1, 0, 2] {
            if !gone.contains(&index) && matches!(gate.turn(tickets[index]), Answer::Go { .. }) {
                gone.push(index);
            }
        }
    }
    assert_eq!(gone, [2, 3, 0, 1]);
}

#[test]
fn a_request_that_may_go_lets_the_head_go_first_if_that_is_about_to_look() {
    let sooner = |gate: &mut Gate| {
        // An answer costs much less than was estimated: the PTU is open at once.
        gate.call(Step::Finished { cost: 4_000.0, after: SECOND, actual: Some(0.0) });
    };
    let mut gate = Gate::busy();
    let waits = gate.enter(0, 4.0 * SECOND);
    let first = ticket(0, &waits);
    let Answer::Wait { after: looks, .. } = waits else { panic!("{waits:?}") };
    gate.now += 5.0 * MS;
    sooner(&mut gate);
    let waits = gate.enter(0, 4.0 * SECOND);
    let second = ticket(0, &waits);
    let Answer::Wait { after, .. } = waits else { panic!("{waits:?}") };
    assert!((after + 5.0 * MS - looks).abs() < MS, "it looks together with the head");
    // The head may be on its way; it may also be dead.
    let mut late = Gate { core: gate.core.clone(), now: START + looks + 2.0 * LEAD + 5.0 * MS };
    assert!(matches!(late.turn(second), Answer::Wait { .. }));
    late.now += 10.0 * MS;
    assert!(matches!(late.turn(second), Answer::Go { .. }));
    gate.now = START + looks + 2.0 * LEAD;
    assert!(matches!(gate.turn(first), Answer::Go { .. }));
    gate.now += 30.0 * MS;
    assert!(matches!(gate.turn(second), Answer::Go { .. }));
    // One that looks much later is not waited for: the PTU would run empty.
    let mut far = Gate::busy();
    let seed = Seed { closed: 400.0 * MS, rate: 40_000.0 };
    far.core = Core::default();
    far.core.call(far.now, 0.0, &seed, &[]);
    assert!(matches!(far.enter(0, 4.0 * SECOND), Answer::Wait { .. }));
    far.call(Step::Finished { cost: 40_000.0, after: SECOND, actual: Some(0.0) });
    assert!(matches!(far.enter(0, 4.0 * SECOND), Answer::Go { .. }));
}

#[test]
fn a_request_that_would_be_served_too_late_spills_at_once() {
    let mut gate = Gate::busy();
    for _ in 0..8 {
        assert!(matches!(gate.enter(0, 4.0 * SECOND), Answer::Wait { .. }));
    }
    let Answer::Spill { wait, allowed, cause } = gate.enter(0, 100.0 * MS) else { panic!() };
    assert_eq!(cause, SpillKind::Queue);
    assert!(wait > 200.0 * MS && allowed < 100.0 * MS, "{wait} {allowed}");
}

#[test]
fn a_request_of_a_dead_process_leaves_and_one_that_was_only_slow_returns_to_its_place() {
    let mut gate = Gate::busy();
    let first = ticket(0, &gate.enter(0, 4.0 * SECOND));
    gate.now += 5.0 * MS;
    let second = ticket(0, &gate.enter(0, 4.0 * SECOND));
    // Neither looks again; all that is asked is by others.
    gate.now += 300.0 * MS;
    let third = gate.core.call(gate.now, 0.0, &Seed { closed: 0.0, rate: 0.0 }, &[]);
    assert_eq!(third.waiting, Some(0));
    // It must not go before the first one, which returns, too.
    let mut refused = gate.turn(second);
    if let Answer::Go { grant, .. } = refused {
        let attempt = grant.attempt.expect("the PTU is busy");
        let hint = Some(200.0 * MS);
        let refusal = Refusal { ticket: second, attempt, ago: 30.0 * MS, hint, share: None };
        gate.now += 30.0 * MS;
        refused = gate
            .call(Step::Refused { refusal, left: 4.0 * SECOND, lead: LEAD })
            .expect("an answer");
    }
    assert!(matches!(refused, Answer::Wait { order, .. } if order == second.order));
    let Answer::Wait { predicted, .. } = gate.turn(first) else { panic!("the hint is not over") };
    let Answer::Wait { predicted: later, .. } = gate.turn(second) else { panic!() };
    assert!(predicted < later, "{predicted} {later}");
}

#[test]
fn a_store_that_forgot_goes_on_with_what_its_caller_was_told() {
    let mut gate = Gate::busy();
    let ahead = ticket(0, &gate.enter(0, 4.0 * SECOND));
    gate.now += 2.0 * MS;
    let behind = ticket(0, &gate.enter(0, 4.0 * SECOND));
    gate.core = Core::default();
    let seed = Seed { closed: 38.0 * MS, rate: 40_000.0 };
    let turn = |ticket| Step::Turn { ticket, left: 4.0 * SECOND, lead: LEAD };
    let reply = gate.core.call(gate.now, 0.0, &seed, &[turn(behind), turn(ahead), turn(behind)]);
    assert_eq!((reply.rate, reply.closed), (40_000.0, Some(38.0 * MS)));
    let waits = |index: usize| match reply.answers[index] {
        Answer::Wait { predicted, .. } => predicted,
        other => panic!("all would go at once: {other:?}"),
    };
    assert!(waits(1) < waits(2), "each is at its old place");
}

#[test]
fn what_attempts_of_a_dead_process_would_give_back_is_forgotten() {
    let mut gate = Gate::busy();
    // Answers of two seconds, which cost a tenth of the estimate.
    for _ in 0..60 {
        gate.call(Step::Finished { cost: 1_000.0, after: 2.0 * SECOND, actual: Some(100.0) });
    }
    let predicted = |gate: &mut Gate| {
        let hint = Some(200.0 * MS);
        let ticket = Ticket { rank: 0, order: -1.0, cost: 1_000.0, is_patient: true };
        let attempt = Attempt { at: 0.0, admitted_before: 0.0, sent_after: 0.0 };
        let refusal = Refusal { ticket, attempt, ago: 30.0 * MS, hint, share: None };
        let step = Step::Refused { refusal, left: 60.0 * SECOND, lead: LEAD };
        let Some(Answer::Wait { predicted, .. }) = gate.call(step) else { panic!("it waits") };
        predicted
    };
    let alone = predicted(&mut gate.core.clone().into());
    gate.now = START + 60.0 * MS;
    let mut granted = 0;
    while granted < 20 {
        gate.now += 30.0 * MS;
        granted += u32::from(matches!(gate.enter(0, 4.0 * SECOND), Answer::Go { .. }));
    }
    let full = predicted(&mut gate.core.clone().into());
    assert!(full < 0.9 * alone, "answers in flight free capacity: {full} {alone}");
    // Nothing is reported for two minutes.
    let mut later = Gate { core: gate.core, now: gate.now + 120.0 * SECOND };
    let forgotten = predicted(&mut later);
    assert!(forgotten > 0.95 * alone, "{forgotten} {alone}");
}

impl From<Core> for Gate {
    fn from(core: Core) -> Self {
        Self { core, now: START + 2.0 * SECOND }
    }
}

#[test]
fn the_fleet_is_told_four_times_a_second_that_the_ptu_is_busy_and_not_once_it_is_idle() {
    let mut gate = Gate::busy();
    let mut told = 0;
    for _ in 0..100 {
        gate.now += 10.0 * MS;
        let newcomer = Newcomer { rank: 0, cost: 10_000.0, is_patient: true };
        let reply = gate.reply(Step::Enter { newcomer, left: 60.0 * SECOND, lead: LEAD });
        told += u32::from(reply.busy.is_some_and(|busy| busy >= SECOND));
    }
    assert!((3..=4).contains(&told), "{told}");
    let mut idle = Gate::busy();
    idle.now += 20.0 * SECOND;
    let newcomer = Newcomer { rank: 0, cost: 1_000.0, is_patient: false };
    let reply = idle.reply(Step::Enter { newcomer, left: SECOND, lead: LEAD });
    assert_eq!((reply.busy, reply.closed), (None, None));
    assert!(matches!(reply.answers[0], Answer::Go { grant: Grant { attempt: None, .. }, .. }));
}
