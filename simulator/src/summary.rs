//! Computes a report's figures from the records of the requests.

use std::time::Duration;

use super::{
    Added, ClassReport, Fate, Open, OutageReport, Policy, RequestReport, Server, SimReport, Slot,
    ledger::{History, Record},
    load::{Ask, Traffic},
    outage::Window,
    plan::{Plan, is_ptu},
};

pub(super) fn summarise(
    policy: Policy,
    plan: &Plan,
    traffic: &Traffic,
    history: &History,
) -> SimReport {
    let measured: Vec<(&Record, &Ask)> = (history.records.iter().zip(&traffic.asks))
        .filter(|(_, ask)| (traffic.from..traffic.to).contains(&ask.at))
        .collect();
    let sums = Sums::of(&measured);
    let requests = measured.len();
    let added = |keep: fn(usize) -> bool| {
        let of = |(record, _): &(&Record, &Ask)| {
            latency(record).filter(|_| server(record).is_some_and(keep))
        };
        let mut added: Vec<f64> = measured.iter().filter_map(of).collect();
        added.sort_by(f64::total_cmp);
        added
    };
    let (all, spilled) = (added(|_| true), added(|server| !is_ptu(server)));
    let numbered = (history.records.iter().zip(&traffic.asks).enumerate())
        .filter(|(_, (_, ask))| (traffic.from..traffic.to).contains(&ask.at));
    let over = |(index, (record, _)): (usize, (&Record, &Ask))| {
        millis(record.last_sent.saturating_sub(record.arrived)) - millis(plan.max_wait_of(index))
    };
    SimReport {
        policy,
        max_wait: plan.max_wait,
        requests,
        utilisation: utilisation(plan, traffic, history),
        spilled_requests: share(sums.spilled as f64, requests as f64),
        spilled_tokens: share(sums.spilled_tokens, sums.tokens),
        beside_ptu: share(sums.tokens - sums.ptu_tokens, sums.tokens),
        attempts_per_success: share(sums.attempts as f64, sums.served as f64),
        worst_attempts: worst_attempts(traffic, &measured),
        added: added_of(&all),
        spilled_added_p50_ms: (!spilled.is_empty()).then(|| percentile(&spilled, 0.50)),
        overtakes: share(sums.overtakes as f64, (sums.served - sums.spilled) as f64),
        refused: share((requests - sums.served) as f64, requests as f64),
        refused_needlessly: share(sums.needless as f64, requests as f64),
        last_dispatch_over_ms: numbered.clone().map(over).fold(f64::NEG_INFINITY, f64::max),
        longest_open: history.open.as_ref().map(|watch| Open {
            longest_ms: millis(watch.longest),
            began: watch.longest_at.as_secs_f64(),
            limit_ms: millis(plan.open_limit()),
            violations: watch.violations,
        }),
        most_asks: measured.iter().map(|(record, _)| record.most_asks).max().unwrap_or(0),
        outages: outages(plan, history),
        classes: (plan.classes.iter())
            .map(|class| {
                let own = numbered.clone().filter(|(index, _)| {
                    plan.class(*index).is_some_and(|other| other.name == class.name)
                });
                class_report(class.name, &own.map(|(_, measured)| measured).collect::<Vec<_>>())
            })
            .collect(),
        spilled_tokens_a_minute: 60.0 * sums.spilled_tokens
            / (traffic.to - traffic.from).as_secs_f64(),
        slots: slots(plan, traffic, history, &measured),
        fates: measured.iter().map(|(record, _)| fate(record, traffic.from)).collect(),
    }
}

/// The percentiles and the mean of sorted latencies.
fn added_of(added: &[f64]) -> Added {
    Added {
        p50: percentile(added, 0.50),
        p95: percentile(added, 0.95),
        p99: percentile(added, 0.99),
        mean: share(added.iter().sum(), added.len() as f64),
    }
}

fn class_report(name: &'static str, measured: &[(&Record, &Ask)]) -> ClassReport {
    let sums = Sums::of(measured);
    let mut added: Vec<f64> = measured.iter().filter_map(|(record, _)| latency(record)).collect();
    added.sort_by(f64::total_cmp);
    ClassReport {
        name,
        requests: measured.len(),
        spilled_tokens: share(sums.spilled_tokens, sums.tokens),
        refused: share((measured.len() - sums.served) as f64, measured.len() as f64),
        added: added_of(&added),
    }
}

#[derive(Default)]
struct Sums {
    tokens: f64,
    attempts: u64,
    served: usize,
    spilled: usize,
    spilled_tokens: f64,
    ptu_tokens: f64,
    overtakes: usize,
    needless: usize,
}

impl Sums {
    fn of(measured: &[(&Record, &Ask)]) -> Self {
        let mut sums = Self::default();
        for (record, ask) in measured {
            sums.tokens += ask.cost();
            sums.attempts += u64::from(record.attempts);
            sums.overtakes += usize::from(record.overtook);
            sums.needless += usize::from(record.needless);
            let Some(server) = server(record) else { continue };
            sums.served += 1;
            if !is_ptu(server) {
                sums.spilled += 1;
                sums.spilled_tokens += ask.cost();
            } else {
                sums.ptu_tokens += ask.cost();
            }
        }
        sums
    }
}

/// Attempts per request served, of those that arrived within the worst slot.
fn worst_attempts(traffic: &Traffic, measured: &[(&Record, &Ask)]) -> f64 {
    let slot = |ask: &Ask| ((ask.at - traffic.from).as_secs_f64() / SLOT_S) as usize;
    let of_slot = |within: &[(&Record, &Ask)]| {
        let sums = Sums::of(within);
        share(sums.attempts as f64, sums.served as f64)
    };
    measured
        .chunk_by(|(_, one), (_, next)| slot(one) == slot(next))
        .map(of_slot)
        .fold(0.0, f64::max)
}

/// What the PTU drained during the measurement: its admissions, plus the bucket's level at the
/// beginning, minus the level at the end.
fn utilisation(plan: &Plan, traffic: &Traffic, history: &History) -> f64 {
    let admitted = |(record, ask): (&Record, &Ask)| match record.accepted {
        Some((server, at)) if is_ptu(server) && (traffic.from..traffic.to).contains(&at) => {
            ask.cost()
        }
        _ => 0.0,
    };
    let admitted: f64 = history.records.iter().zip(&traffic.asks).map(admitted).sum();
    let [before, after] = history.level_at;
    let capacity = plan.capacity(traffic.from, traffic.to);
    ((admitted + before - after) / capacity).clamp(0.0, 1.0)
}

fn outages(plan: &Plan, history: &History) -> Vec<OutageReport> {
    let report = |(index, window): (usize, &Window)| {
        let late = window.from + plan.max_wait..window.to;
        let within = history.records.iter().filter(|record| late.contains(&record.arrived));
        let mut added: Vec<f64> = within.filter_map(latency).collect();
        added.sort_by(f64::total_cmp);
        let noticed = history.noticed.get(index).copied().flatten();
        OutageReport {
            added_p95_ms: percentile(&added, 0.95),
            noticed_after_ms: noticed.map(|at| millis(at - window.to)),
        }
    };
    plan.outages.iter().enumerate().map(report).collect()
}

fn slots(
    plan: &Plan,
    traffic: &Traffic,
    history: &History,
    measured: &[(&Record, &Ask)],
) -> Vec<Slot> {
    let length = (traffic.to - traffic.from).as_secs_f64();
    let count = (length / SLOT_S).ceil() as usize;
    let mut slots: Vec<Slot> =
        (0..count).map(|index| Slot { at: index as f64 * SLOT_S, ..Slot::default() }).collect();
    for (record, ask) in measured {
        let slot = &mut slots[((ask.at - traffic.from).as_secs_f64() / SLOT_S) as usize];
        slot.arrived += 1;
        slot.spilled += usize::from(server(record).is_some_and(|server| !is_ptu(server)));
        let added = latency(record).unwrap_or(0.0);
        slot.added += added;
        slot.worst = slot.worst.max(added);
    }
    for record in &history.records {
        let until = record.accepted.map(|(_, at)| at).or(record.done).unwrap_or(record.arrived);
        let relative = |at: Duration| at.as_secs_f64() - traffic.from.as_secs_f64();
        spread(&mut slots, relative(record.arrived), relative(until), length);
    }
    let capacity = plan.ptu_rate * plan.bucket_seconds;
    for slot in &mut slots {
        slot.added /= (slot.arrived as f64).max(1.0);
        let from = (slot.at + traffic.from.as_secs_f64()).ceil() as usize;
        let seconds = history.levels.iter().skip(from).take(SLOT_S as usize);
        let (sum, count) = seconds.fold((0.0, 0.0), |(sum, n), level| (sum + level, n + 1.0));
        slot.level = share(sum, count) / capacity;
    }
    slots
}

/// Adds a request that waits from `from` to `to` to the mean queue of the slots in between.
fn spread(slots: &mut [Slot], from: f64, to: f64, length: f64) {
    let first = (from.max(0.0) / SLOT_S) as usize;
    for slot in slots.iter_mut().skip(first).take_while(|slot| slot.at < to) {
        let end = (slot.at + SLOT_S).min(length);
        let within = (to.min(end) - from.max(slot.at)).max(0.0);
        slot.queue += within / (end - slot.at);
    }
}

fn fate(record: &Record, from: Duration) -> RequestReport {
    RequestReport {
        arrived: record.arrived.saturating_sub(from),
        process: record.process,
        attempts: record.attempts,
        last_dispatch: record.last_sent.saturating_sub(record.arrived),
        fate: match record.accepted {
            Some((server, at)) if is_ptu(server) => Fate::Served(Server::Ptu, at - record.arrived),
            Some((server, at)) => Fate::Served(Server::Standard(server - 1), at - record.arrived),
            None => Fate::Refused,
        },
    }
}

fn server(record: &Record) -> Option<usize> {
    record.accepted.map(|(server, _)| server)
}

/// The added latency of a served request, in milliseconds.
fn latency(record: &Record) -> Option<f64> {
    record.accepted.map(|(_, at)| millis(at.saturating_sub(record.arrived)))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The nearest rank of sorted values; 0 if there are none.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// `part` of `whole`; 0 if `whole` is 0.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The length of a slot, in seconds.
const SLOT_S: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.5), 50.0);
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&hundred[..1], 0.99), 1.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_wait_over_several_slots_counts_in_each_by_its_part() {
        let mut slots: Vec<_> = [0.0, 10.0, 20.0].map(|at| Slot { at, ..Slot::default() }).to_vec();
        spread(&mut slots, 5.0, 22.5, 25.0);
        assert_eq!([0, 1, 2].map(|slot| slots[slot].queue), [0.5, 1.0, 0.5]);
        spread(&mut slots, -3.0, -1.0, 25.0);
        assert_eq!(slots[0].queue, 0.5, "before measuring");
    }
}
