//! The constants of the gate of one process against those of the core that a fleet shares.

use std::{collections::BTreeMap, fs, path::Path};

use crate::fleet::CONSTANTS;

#[test]
fn a_fleet_has_the_constants_of_one_process() {
    let of_fleet: BTreeMap<&str, f64> = CONSTANTS.iter().copied().collect();
    let mut compared = Vec::new();
    for (name, value) in of_one_process() {
        let (short, micros) = match name.strip_suffix("_NS") {
            Some(short) => (short, value / 1e3),
            None => (name.strip_suffix("_S").unwrap_or(&name), value * 1e6),
        };
        if let Some(&(_, own, shared, theirs)) = DIFFERENT.iter().find(|row| row.0 == name) {
            assert_eq!(value, own, "{name} was {own}: does {shared} follow?");
            assert_eq!(of_fleet[shared], theirs, "{shared} was {theirs}: does {name} follow?");
            compared.push(shared);
        } else if let Some((same, theirs)) = of_fleet.get_key_value(&*name) {
            assert_eq!(*theirs, value, "{name} of a fleet");
            compared.push(same);
        } else if let Some((same, theirs)) = of_fleet.get_key_value(short) {
            assert!((theirs - micros).abs() <= 1e-9 * micros, "{same} of a fleet, of {name}");
            compared.push(same);
        } else {
            assert!(ALONE.contains(&&*name), "a fleet has no {name}");
        }
    }
    for (name, _) in CONSTANTS {
        let is_compared = compared.contains(name);
        assert_ne!(is_compared, OF_FLEETS.contains(name), "{name} is compared: {is_compared}");
    }
}

/// The constants in the files of `gate/core`, by their names there.
fn of_one_process() -> BTreeMap<String, f64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gate/core");
    let files = fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file").path());
    let mut constants = BTreeMap::new();
    // `time` has units.
    for file in files.filter(|file| file.is_file() && !file.ends_with("time.rs")) {
        let text = fs::read_to_string(&file).expect("a source");
        for line in text.lines() {
            let line = line.strip_prefix("pub(super) ").unwrap_or(line);
            let Some((name, rest)) = line.strip_prefix("const ").and_then(|it| it.split_once(": "))
            else {
                continue;
            };
            let value = rest.split_once(" = ").and_then(|(_, value)| value.strip_suffix(';'));
            let value = value.and_then(number);
            let value = value.unwrap_or_else(|| panic!("{}: {line}", file.display()));
            assert_eq!(constants.insert(name.to_owned(), value), None, "{name} exists twice");
        }
    }
    constants
}

/// The value of a number, or of numbers and units with `*` and `/` between them.
fn number(text: &str) -> Option<f64> {
    if let Some((left, right)) = text.split_once(" * ") {
        return Some(number(left)? * number(right)?);
    }
    if let Some((left, right)) = text.split_once(" / ") {
        return Some(number(left)? / number(right)?);
    }
    match text {
        "SECOND" => Some(1e9),
        "MILLISECOND" => Some(1e6),
        _ => text.replace('_', "").parse().ok(),
    }
}

/// What differs: the constant of one process, and that of a fleet.
const DIFFERENT: &[(&str, f64, &str, f64)] = &[
    // The same, in another form.
    ("RESERVE_MARGIN_DIVISOR", 16.0, "RESERVE_MARGIN", 1.0 + 1.0 / 16.0),
    ("SILENCE_HALF_TRIPS", 3.0, "SILENCE_TRIPS", 3.0 / 2.0),
    ("IDLE_GROWTH_PER_S", 1.15, "LN_IDLE_GROWTH_PER_S", 0.139_761_942_375_158_6),
    // A fleet checks every hint, and later: its module says why.
    ("CHECK_AND_TRIP_S", 0.35, "CHECK_AND_TRIP", 390e3),
];

/// What a fleet leaves out; its module says why.
const ALONE: &[&str] = &[
    // Contention.
    "LOST_WEIGHT",
    "MIN_LOST_SHARE",
    "YIELDING_PACE",
    "COMPETING_PACE",
    "MAX_WAIT_DISCOUNT",
    "HINT_WEIGHT",
    "MAX_HINT_S",
    "INITIAL_HINT_S",
    "MAX_DOUBLINGS",
    "MAX_PASSED_OVER_S",
    "MIN_YIELDING_CHECK_NS",
    "MAX_YIELDING_CHECK_NS",
    // The limit on attempts of one request.
    "MAX_ASKS_PER_WINDOW",
    "ASK_WINDOW_NS",
    "MAX_WAIT_TO_ASK_NS",
    // How long silence lasts. With it, a fleet under lasting overload makes 1.105 attempts per success
    // instead of 1.08: refusals become known through the store, which their latencies do not include.
    "DEVIATION_DIVISOR",
    "SILENCE_DEVIATIONS",
    // Checks that come sooner.
    "CHECK_FILLS",
    "MAX_CHECK_S",
    "MAX_HINT_UNCHECKED_NS",
];

/// What only a fleet has, and units.
const OF_FLEETS: &[&str] = &[
    "NEVER",
    "SECOND",
    "MILLISECOND",
    "DISPATCH_MARGIN",
    "SEED_TIME_S",
    "APPOINTMENT_SHARE",
    "MIN_APPOINTMENT",
    "GRANT_AHEAD",
    "YIELD",
    "MAX_YIELD_LATENESS",
    "MAX_LATENESS",
    "PURGE_INTERVAL",
    "IN_FLIGHT_DECAY",
    "NEWS_INTERVAL",
    "BUSY_MARGIN",
    "FOREVER",
];
