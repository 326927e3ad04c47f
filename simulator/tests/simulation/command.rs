//! The command line of `simulate`.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

/// `simulate ARGS`.
fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulate")).args(args).output().expect("it runs")
}

fn file(name: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, text).expect("the test's folder can be written to");
    file
}

fn trace(requests: usize) -> String {
    let mut text = String::from("TIMESTAMP,ContextTokens,GeneratedTokens\r\n");
    for index in 0..requests {
        let (seconds, tenths) = (index / 10, index % 10);
        text += &format!("2023-11-16 18:17:{seconds:02}.{tenths}000000,{},10\r\n", 500 + index);
    }
    text
}

#[test]
fn json_has_one_object_for_each_policy_with_the_same_keys() {
    let file = file("good.csv", &trace(200));
    let file = file.to_str().expect("a plain path");
    let output = simulate(&[
        "--trace",
        file,
        "--ptu-fraction",
        "0.5",
        "--bucket",
        "1s",
        "--max-wait",
        "500ms",
        "--policy",
        "spill-first,reference,region-chain,shared,oracle",
        "--json",
    ]);
    assert!(output.status.success(), "{output:?}");
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).expect("an array");
    let names: Vec<_> = list.iter().map(|report| &report["policy"]).collect();
    assert_eq!(names, ["spill-first", "reference", "region-chain", "shared", "oracle"]);
    for report in &list {
        assert_eq!(
            keys(report),
            [
                "added_ms",
                "attempts_per_success",
                "attempts_per_success_in_worst_10_s",
                "beside_ptu",
                "classes",
                "last_dispatch_over_ms",
                "longest_open_ms",
                "most_asks_in_4_s",
                "open_violations",
                "outages",
                "overtakes",
                "policy",
                "refused",
                "requests",
                "spilled_added_p50_ms",
                "spilled_requests",
                "spilled_tokens",
                "spilled_tokens_a_minute",
                "utilisation",
            ]
        );
        assert_eq!(report["requests"], 200);
        assert_eq!(keys(&report["added_ms"]), ["mean", "p50", "p95", "p99"]);
        assert!(report["spilled_tokens"].as_f64().is_some_and(|share| (0.3..0.9).contains(&share)));
    }
}

/// Sorted: serde_json keeps them as they were written if any crate beside it asks for that.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> =
        object.as_object().expect("an object").keys().map(|key| &**key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn a_wrong_line_and_wrong_arguments_are_explained() {
    let wrong = trace(30).replacen("507,10", "5O7,10", 1);
    let file = file("wrong.csv", &wrong);
    let file = file.to_str().expect("a plain path");
    for (args, explanation) in [
        (vec!["--trace", file], "line 9: \"5O7\" in ContextTokens is not a whole number of tokens"),
        (vec!["--trace", "/does/not/exist.csv"], "--trace /does/not/exist.csv: "),
        (vec!["--policy", "best"], "none is called `best`: use `all` or spill-first"),
        (vec!["--poisson", "3", "--trace", file], "cannot be used with"),
        (vec!["--ptu-fraction", "-1", "--policy", "oracle"], "ptu_fraction: is -1"),
        (vec!["--duration", "0s"], "a duration above 0"),
        (vec!["--max-wait", "4"], "write it like 4s, 250ms or 20m"),
    ] {
        let output = simulate(&args);
        assert!(!output.status.success(), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains(explanation), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn worlds_are_found_by_a_part_of_their_names_and_told_in_a_row_each() {
    let output = simulate(&["--worlds", "hints-5s,base", "--duration", "1m", "--seeds", "1"]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    let names: Vec<_> = table.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(names[..2], ["world", "base"], "{table}");
    assert!(names.contains(&"hints-5s") && !names.contains(&"hints-none"), "{table}");
    assert!(!table.contains("yield"), "nobody else is there: {table}");
    let output = simulate(&["--worlds", "base,nowhere"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("no name has `nowhere` in it: base, max-tokens-4000"), "{text}");
}

#[test]
fn where_others_fill_the_same_ptu_yielding_and_competing_are_both_shown() {
    let output =
        simulate(&["--worlds", "neighbour-hammers,base", "--duration", "1m", "--seeds", "1"]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    let (_, contended) = table.split_once("Where others use the same PTU").expect("its heading");
    assert!(contended.contains("ref / yield / compete"), "{table}");
    assert!(contended.contains("| neighbour-hammers") && !contended.contains("| base"), "{table}");
}

#[test]
fn a_picture_is_drawn_and_a_table_printed() {
    let picture = file("picture.svg", "");
    let output = simulate(&[
        "--bursty",
        "5",
        "--duration",
        "1m",
        "--policy",
        "oracle,shared",
        "--svg",
        picture.to_str().expect("a plain path"),
    ]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("| oracle "), "{table}");
    let drawn = fs::read_to_string(picture).expect("it was written");
    assert!(drawn.starts_with("<svg ") && drawn.contains("Choosing max_wait"));
}
