//! The core against the script in a real store: the answers are equal, not close.

use std::env;

use redis::{Client, Pipeline, Script};
use spillover_testing::redis::Server;

use super::{
    Answer, Attempt, Core, MAX_RANK, Newcomer, Refusal, Reply, Seed, Step, Ticket, wire::script,
};
use crate::random::split_mix;

#[test]
fn the_script_answers_as_the_core_does() {
    let Some(server) = Server::start(&[]) else { return };
    let client = Client::open(server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("it listens");
    // During an update of the processes, two versions with the same layout work on one state.
    let versions = [script(), script() + "-- another version\n"].map(|text| Script::new(&text));
    for version in &versions {
        version.load(&mut connection).expect("a script that compiles");
    }
    let sequences = env::var("SPILLOVER_SEQUENCES").ok().and_then(|count| count.parse().ok());
    let mut seen = Seen::default();
    for sequence in 0..sequences.unwrap_or(SEQUENCES) {
        let mut world = World::new(sequence);
        let calls: Vec<Call> = (0..CALLS_PER_SEQUENCE).map(|_| world.next(&mut seen)).collect();
        let mut pipeline = redis::pipe();
        for (call, version) in calls.iter().zip(versions.iter().cycle()) {
            call.write_to(&mut pipeline, version.get_hash(), sequence);
        }
        let replies: Vec<Vec<i64>> = pipeline.query(&mut connection).expect("it answers");
        for (index, (call, reply)) in calls.iter().zip(replies).enumerate() {
            let reply = Reply::read(&reply).unwrap_or_else(|| panic!("no reply: {reply:?}"));
            assert_eq!(reply, call.reply, "call {index} of sequence {sequence}: {:?}", call.steps);
        }
    }
    assert!(seen.all(), "the sequences do not cover every answer: {seen:?}");
}

#[test]
fn what_a_call_of_the_script_does_does_not_grow_with_the_queue() {
    let Some(server) = Server::start(&[]) else { return };
    let client = Client::open(server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("it listens");
    let script = Script::new(&script());
    script.load(&mut connection).expect("a script that compiles");
    let per_call = [10, 200].map(|waiting| {
        let key = |part: &str| format!("sp1:{{test:g:{waiting}}}:{part}");
        let mut call = |now: f64, step: Step| -> Vec<i64> {
            let seed = ["10000000", "40000"].map(str::to_owned);
            let mut arguments = vec![now.to_string(), key("n"), "0".to_owned()];
            arguments.extend(seed);
            step.write_to(&mut arguments);
            let mut command = redis::cmd("EVALSHA");
            command.arg(script.get_hash()).arg(3).arg(&["s", "q", "w"].map(key)[..]);
            command.arg(arguments).query(&mut connection).expect("it answers")
        };
        let start = 1_790_000_000_000_000.0;
        let newcomer = Newcomer { rank: 0, cost: 1_000.0, is_patient: false };
        let tickets: Vec<Ticket> = (0..waiting)
            .map(|_| {
                let reply = call(start, Step::Enter { newcomer, left: 60e6, lead: 500.0 });
                assert_eq!(reply[0], 2, "it waits");
                Ticket { rank: 0, order: reply[2] as f64, cost: 1_000.0, is_patient: false }
            })
            .collect();
        server.command(&["CONFIG", "RESETSTAT"]);
        for (number, ticket) in tickets.iter().cycle().take(TURNS).enumerate() {
            let now = start + 30e3 * number as f64 / TURNS as f64;
            let step = Step::Turn { ticket: *ticket, left: 60e6, lead: 500.0 };
            assert_eq!(call(now, step)[0], 2, "it waits on");
        }
        let stats = server.command(&["INFO", "commandstats"]);
        let number = |line: &str, name: &str| -> f64 {
            let (_, rest) = line.split_once(name).expect("a figure");
            rest.split(',').next().expect("a number").trim().parse().expect("a number")
        };
        let of_script = |line: &&str| {
            !["evalsha", "config", "info"]
                .iter()
                .any(|it| line.starts_with(&format!("cmdstat_{it}")))
        };
        let lines = || stats.lines().filter(|line| line.starts_with("cmdstat_"));
        let commands: f64 = lines().filter(of_script).map(|line| number(line, "calls=")).sum();
        let own = lines().find(|line| line.starts_with("cmdstat_evalsha")).expect("its calls");
        assert_eq!(number(own, "calls="), TURNS as f64);
        let time = number(own, "usec_per_call=");
        println!("{waiting} waiting: {time} us a call, {} commands", commands / TURNS as f64);
        commands
    });
    assert!(per_call[0] <= 8.0 * TURNS as f64, "{per_call:?}");
    assert!(per_call[1] <= per_call[0] + 2.0, "{per_call:?}");
}

/// A call, and the core's reply.
struct Call {
    now: f64,
    interval: f64,
    seed: Seed,
    steps: Vec<Step>,
    reply: Reply,
    /// Whether the store has forgotten the state by now.
    forgot: bool,
}

impl Call {
    fn write_to(&self, pipeline: &mut Pipeline, hash: &str, sequence: u64) {
        let key = |part: &str| format!("sp1:{{test:g:{sequence}}}:{part}");
        if self.forgot {
            pipeline.del(key("s")).ignore();
        }
        let mut arguments = vec![self.now.to_string(), key("n"), self.interval.to_string()];
        arguments.extend([self.seed.closed.to_string(), self.seed.rate.to_string()]);
        for step in &self.steps {
            step.write_to(&mut arguments);
        }
        pipeline.cmd("EVALSHA").arg(hash).arg(3).arg(&["s", "q", "w"].map(key)[..]).arg(arguments);
    }
}

/// The answers that sequences lead to.
#[derive(Debug, Default)]
struct Seen {
    granted: u32,
    untracked: u32,
    waiting: u32,
    spilled: [u32; 3],
    forgotten: u32,
}

impl Seen {
    fn all(&self) -> bool {
        let Self { granted, untracked, waiting, spilled, forgotten } = *self;
        [granted, untracked, waiting, spilled[0], spilled[1], spilled[2], forgotten]
            .iter()
            .all(|count| *count > 0)
    }
}

/// A random history of one PTU.
struct World {
    core: Core,
    draws: Draws,
    now: f64,
    interval: f64,
    /// Mean time between two calls, in microseconds.
    pace: f64,
    /// Which kind of hints the PTU gives.
    hints: u64,
    /// When it reopens, if its hints count down.
    reopens: f64,
    /// Actual cost as a share of the estimate.
    ratio: f64,
    waiting: Vec<Ticket>,
    in_flight: Vec<InFlight>,
}

#[derive(Clone, Copy)]
struct InFlight {
    ticket: Ticket,
    attempt: Option<Attempt>,
    is_admitted: bool,
}

impl World {
    fn new(sequence: u64) -> Self {
        let mut draws = Draws::new(sequence);
        Self {
            core: Core::default(),
            now: 1_790_000_000_000_000.0 + sequence as f64 * 1e9,
            interval: [0.0, 1e6, 20e6][draws.below(3)],
            pace: [1e3, 5e3, 30e3, 200e3][draws.below(4)],
            hints: draws.below(6) as u64,
            reopens: 0.0,
            ratio: 0.2 + draws.share(),
            draws,
            waiting: Vec::new(),
            in_flight: Vec::new(),
        }
    }

    fn next(&mut self, seen: &mut Seen) -> Call {
        self.now += self.exponential(self.pace);
        match self.draws.below(400) {
            0..8 => self.now += self.exponential(3e6),
            8 | 9 => self.now += 15e6,
            10 => self.now -= 1e6,
            _ => {}
        }
        let (mut steps, mut asking) = (Vec::new(), Vec::new());
        for _ in 0..=self.draws.below(3) {
            let (step, ticket) = self.step();
            steps.extend(step);
            asking.extend(ticket);
        }
        let forgot = self.draws.below(300) == 0;
        if forgot {
            self.core = Core::default();
            seen.forgotten += 1;
        }
        let seed = match self.draws.below(2) {
            0 => Seed { closed: 0.0, rate: 0.0 },
            _ => Seed { closed: self.whole(1e6), rate: self.whole(50e3) },
        };
        let reply = self.core.call(self.now, self.interval, &seed, &steps);
        for (ticket, answer) in asking.into_iter().zip(&reply.answers) {
            match *answer {
                Answer::Go { grant, .. } => {
                    let ticket = Ticket { order: grant.order, ..ticket };
                    let attempt = grant.attempt;
                    self.in_flight.push(InFlight { ticket, attempt, is_admitted: false });
                    *if attempt.is_some() { &mut seen.granted } else { &mut seen.untracked } += 1;
                }
                Answer::Wait { order, .. } => {
                    self.waiting.push(Ticket { order, ..ticket });
                    seen.waiting += 1;
                }
                Answer::Spill { cause, .. } => seen.spilled[cause as usize] += 1,
            }
        }
        Call { now: self.now, interval: self.interval, seed, steps, reply, forgot }
    }

    /// A step, and the request that asks it.
    fn step(&mut self) -> (Option<Step>, Option<Ticket>) {
        let lead = [0.0, 100.0, 500.0, 10e3][self.draws.below(4)];
        let left = self.whole(5e6);
        let kind = self.draws.below(20);
        if kind < 7 || self.waiting.is_empty() && self.in_flight.is_empty() {
            let rank = self.draws.below(8).min(self.draws.below(8)) as u8;
            let cost = self.exponential(1e3);
            let newcomer = Newcomer { rank, cost, is_patient: self.draws.below(7) == 0 };
            assert!(rank <= MAX_RANK);
            let ticket = Ticket { rank, order: -1.0, cost, is_patient: newcomer.is_patient };
            return (Some(Step::Enter { newcomer, left, lead }), Some(ticket));
        }
        if kind < 12 && !self.waiting.is_empty() {
            let ticket = self.waiting.swap_remove(self.draws.below(self.waiting.len()));
            return match self.draws.below(10) {
                0 => (Some(Step::Leave { ticket }), None),
                _ => (Some(Step::Turn { ticket, left, lead }), Some(ticket)),
            };
        }
        if self.in_flight.is_empty() {
            return (None, None);
        }
        let sent = self.in_flight.swap_remove(self.draws.below(self.in_flight.len()));
        let InFlight { ticket, attempt, is_admitted } = sent;
        let cost = ticket.cost;
        match (attempt, self.draws.below(20)) {
            (Some(_), kind) if is_admitted => {
                let actual = (kind < 16).then_some((cost * self.ratio).floor());
                (Some(Step::Finished { cost, after: self.exponential(1e6), actual }), None)
            }
            (Some(attempt), 0..8) => {
                self.in_flight.push(InFlight { is_admitted: true, ..sent });
                let share = (self.draws.below(10) < 7)
                    .then(|| (900 + self.draws.below(130)) as f64 / 1_000.0);
                (Some(Step::Accepted { attempt, since: self.whole(20e3), share }), None)
            }
            (Some(attempt), 8..10) => (Some(Step::Gone { at: attempt.at, cost }), None),
            (None, 0..8) => (None, None),
            (attempt, _) => {
                let hint = match self.hints {
                    0 => None,
                    1 => Some(5e6),
                    2 => Some(self.exponential(2e6)),
                    3 => {
                        if self.reopens <= self.now {
                            self.reopens = self.now + self.whole(6e6);
                        }
                        Some(self.reopens - self.now)
                    }
                    _ => Some(self.exponential(50e3)),
                };
                let share = hint.filter(|_| self.draws.below(10) < 8);
                let share = share.map(|hint| 1.0 + (hint / 1e4).floor() / 1e3);
                let order = if attempt.is_some() { ticket.order } else { -1.0 };
                let ticket = Ticket { order, ..ticket };
                let none = Attempt { at: 0.0, admitted_before: 0.0, sent_after: 0.0 };
                let attempt = attempt.unwrap_or(none);
                let ago = [30e3, 300e3][self.draws.below(2)];
                let ago = self.exponential(ago);
                let refusal = Refusal { ticket, attempt, ago, hint, share };
                (Some(Step::Refused { refusal, left, lead }), Some(ticket))
            }
        }
    }

    /// Exponentially distributed around `mean`, without a fraction.
    fn exponential(&mut self, mean: f64) -> f64 {
        (-mean * (1.0 - self.draws.share()).ln()).floor()
    }

    fn whole(&mut self, below: f64) -> f64 {
        (below * self.draws.share()).floor()
    }
}

/// Random numbers that are the same in every run.
struct Draws(u64);

impl Draws {
    fn new(seed: u64) -> Self {
        Self(split_mix(seed))
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        split_mix(self.0)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit as u64) as usize
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// In a few seconds; `SPILLOVER_SEQUENCES` runs more.
const SEQUENCES: u64 = 1_000;
const CALLS_PER_SEQUENCE: usize = 60;
const TURNS: usize = 1_000;
