//! Runs all worlds and prints one table with verdicts.

use std::{error::Error, fmt::Write};

use spillover_simulator::{Bar, Others, Policy, Rig, SimReport, Trace, World};

use crate::{args::Args, report::average, runs};

/// How each policy did in one world: means over the seeds.
pub(crate) struct Row {
    world: World,
    by_policy: Vec<SimReport>,
}

/// Runs the worlds that `args` selects, and reports how each policy did in each.
pub(crate) fn compare(args: &Args) -> Result<String, Box<dyn Error>> {
    let trace = args.read_trace()?;
    let worlds = selected(args, trace.as_ref())?;
    let rows = run(args, worlds)?;
    let contended = contended_table(&rows);
    let heading = if contended.is_empty() { "" } else { "\nWhere others use the same PTU:\n\n" };
    Ok(format!("{}{heading}{contended}", tables(&rows)?))
}

pub(crate) fn selected(args: &Args, trace: Option<&Trace>) -> Result<Vec<World>, String> {
    let mut worlds = World::all(trace);
    if let Some(names) = &args.worlds {
        let wanted: Vec<&str> = names.split(',').map(str::trim).collect();
        if let Some(name) =
            wanted.iter().find(|name| !worlds.iter().any(|w| w.name.contains(*name)))
        {
            let known: Vec<_> = worlds.iter().map(|world| world.name).collect();
            return Err(format!("--worlds: no name has `{name}` in it: {}", known.join(", ")));
        }
        worlds.retain(|world| wanted.iter().any(|name| world.name.contains(name)));
    }
    Ok(worlds)
}

pub(crate) fn run(args: &Args, worlds: Vec<World>) -> Result<Vec<Row>, Box<dyn Error>> {
    let policies = |world: &World| policies(args, world);
    let seeds = args.seed..args.seed.saturating_add(args.seeds.unwrap_or(3).max(1));
    let mut jobs = Vec::new();
    for world in &worlds {
        let mut simulation = world.simulation.clone();
        if let Some(length) = args.duration {
            simulation = simulation.length(length);
        }
        for policy in policies(world)? {
            jobs.extend(seeds.clone().map(|seed| (simulation.clone().seed(seed), policy)));
        }
    }
    let mut reports = runs::batch(&jobs)?.into_iter();
    let each = seeds.end - seeds.start;
    let mut next = || average(&reports.by_ref().take(each as usize).collect::<Vec<_>>());
    let row = |world| {
        let by_policy = policies(&world)?.iter().map(|_| next()).collect();
        Ok(Row { world, by_policy })
    };
    worlds.into_iter().map(row).collect()
}

/// The policies to run in `world`: competing differs from yielding only on a contended PTU.
fn policies(args: &Args, world: &World) -> Result<Vec<Policy>, String> {
    if args.policy != "all" {
        return args.policies();
    }
    let competes = world.is_contended().then_some(Policy::GateCompete);
    Ok(POLICIES.into_iter().chain(competes).collect())
}

impl Row {
    fn of(&self, policy: Policy) -> Option<&SimReport> {
        self.by_policy.iter().find(|report| report.policy == policy)
    }

    fn gate(&self) -> Option<&SimReport> {
        self.of(Policy::GateStanding)
    }

    /// Describes the requirements that the gate does not meet.
    fn failures(&self, rows: &[Self]) -> Vec<String> {
        let Some(gate) = self.gate() else { return Vec::new() };
        let named = self.world.bars.iter().find_map(Bar::elsewhere);
        let elsewhere = rows.iter().find(|row| Some(row.world.name) == named);
        let others = Others {
            native: self.of(Policy::SpillFirst),
            reference: self.of(Policy::Reference),
            oracle: self.of(Policy::Oracle),
            elsewhere: elsewhere.and_then(Self::gate),
        };
        let verdicts = self.world.judge(gate, &others).into_iter();
        let failing = verdicts.filter(|verdict| !verdict.holds);
        failing.map(|verdict| format!("{}: {:.2}", verdict.asked, verdict.found)).collect()
    }
}

/// A table of each world's figures, and the requirements that the gate does not meet.
pub(crate) fn tables(rows: &[Row]) -> Result<String, std::fmt::Error> {
    let mut text = String::from(HEAD);
    let mut failing = 0;
    for row in rows {
        let failures = row.failures(rows);
        failing += usize::from(!failures.is_empty());
        let each = |figure: fn(&SimReport) -> Option<f64>, digits: usize| {
            let cell = |policy: &Policy| match row.of(*policy).and_then(figure) {
                Some(figure) => format!("{figure:.digits$}"),
                None => "-".to_owned(),
            };
            POLICIES.iter().map(cell).collect::<Vec<_>>()
        };
        let tokens = each(|report| Some(100.0 * report.beside_ptu), 2);
        let mean = each(|report| Some(report.added.mean), 0);
        let attempts = each(|report| Some(report.attempts_per_success), 2);
        let p50 = each(|report| report.spilled_added_p50_ms, 0);
        let open = each(|report| report.longest_open.map(|open| open.longest_ms), 0);
        let most = each(|report| Some(f64::from(report.most_asks)), 0);
        let over = each(|report| Some(report.last_dispatch_over_ms), 0);
        let verdict = if failures.is_empty() { "ok".to_owned() } else { failures.join("; ") };
        writeln!(
            text,
            "| {:<22} | {:>6} | {:>6} | {:>6} | {:>6} | {:>6} / {:>6} | {:>6} / {:>5} | {:>5} | \
             {:>6} / {:>6} | {:>5} | {:>6} | {verdict} |",
            row.world.name,
            tokens[0],
            tokens[1],
            tokens[2],
            tokens[3],
            mean[1],
            mean[2],
            attempts[1],
            attempts[2],
            p50[2],
            open[1],
            open[2],
            most[2],
            over[2],
        )?;
    }
    writeln!(
        text,
        "\n{failing} of {} worlds have a requirement that the gate does not meet.",
        rows.len()
    )?;
    Ok(text)
}

/// In column order.
const POLICIES: [Policy; 4] =
    [Policy::SpillFirst, Policy::Reference, Policy::GateStanding, Policy::Oracle];
const HEAD: &str = "\
| world                  | native |    ref |   gate | oracle | mean ref / gate |  att ref / gate | spl50 | open ref / gate | asks  |   over | against the gate |
|------------------------|-------:|-------:|-------:|-------:|----------------:|---------------:|------:|----------------:|------:|-------:|------------------|
";

/// Compares the default gate, which yields, with one that competes; empty if no row has both.
pub(crate) fn contended_table(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let reference = row.of(Policy::Reference)?;
        let gates = [row.gate()?, row.of(Policy::GateCompete)?];
        let all = [reference, gates[0], gates[1]];
        let [tokens, tokens_yielding, tokens_competing] = all.map(|it| 100.0 * it.beside_ptu);
        let [attempts, attempts_yielding, attempts_competing] =
            all.map(|it| it.attempts_per_success);
        let [mean, mean_yielding, mean_competing] = all.map(|it| it.added.mean);
        let [p50_yielding, p50_competing] =
            gates.map(|it| it.spilled_added_p50_ms.unwrap_or_default());
        Some(format!(
            "| {:<22} | {tokens:>6.2} / {tokens_yielding:>6.2} / {tokens_competing:>6.2} | \
             {attempts:>6.2} / {attempts_yielding:>5.2} / {attempts_competing:>5.2} | \
             {mean:>5.0} / {mean_yielding:>5.0} / {mean_competing:>5.0} | \
             {p50_yielding:>5.0} / {p50_competing:>5.0} |\n",
            row.world.name
        ))
    };
    let lines: String = rows.iter().filter_map(line).collect();
    if lines.is_empty() { lines } else { format!("{CONTENDED_HEAD}{lines}") }
}

const CONTENDED_HEAD: &str = "\
| world                  | tokens ref / yield / compete | att ref / yield / compete | mean ref / yield / compete | spl50 yield / compete |
|------------------------|-----------------------------:|--------------------------:|---------------------------:|----------------------:|
";

/// Lists how each world differs from the base.
pub(crate) fn list(rows: &[Row]) -> String {
    let line = |row: &Row| format!("- `{}`: {};\n", row.world.name, row.world.about);
    rows.iter().map(line).collect()
}

/// The figures that an independent rig measured in some of the worlds.
pub(crate) fn rig_table(rows: &[Row]) -> String {
    let cell = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |it| format!("{it:.1}"));
    let line = |row: &Row| {
        let Rig { native, reference, gate, oracle, .. } = row.world.rig?;
        let [native, reference, gate, oracle] = [native, reference, gate, oracle].map(cell);
        let name = row.world.name;
        Some(format!("| {name:<22} | {native:>6} | {reference:>6} | {gate:>6} | {oracle:>6} |\n"))
    };
    format!("{RIG_HEAD}{}", rows.iter().filter_map(line).collect::<String>())
}

const RIG_HEAD: &str = "\
| world                  | native |    ref |   gate | oracle |
|------------------------|-------:|-------:|-------:|-------:|
";
