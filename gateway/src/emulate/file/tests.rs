//! Which files are accepted, and the errors for others.

use super::*;

fn told(text: &str) -> String {
    match parse(Path::new("emulator.toml"), text) {
        Ok(_) => String::new(),
        Err(problems) => problems.join("\n"),
    }
}

const HEAD: &str = "[[resources]]\nname = \"east\"\n";

#[test]
fn the_file_of_the_help_is_taken() {
    let text = include_str!("../example.toml");
    let wanted = parse(Path::new("e.toml"), text).map_err(|problems| problems.join("\n")).unwrap();
    assert_eq!(wanted.seed, 7);
    assert_eq!(wanted.resources[0].place.deployments, ["gpt-4o-ptu", "gpt-4o"]);
    assert_eq!(wanted.resources[0].scripts[0].faults.len(), 8, "two passes are two");
}

#[test]
fn a_mistake_is_told_with_its_line_its_key_and_what_belongs_there() {
    let deployment = "[[resources.deployments]]\nname = \"a\"\n";
    for (text, line, words) in [
        (format!("{HEAD}regoin = \"x\"\n"), 3, "unknown field `regoin`, expected one of"),
        (format!("{HEAD}{deployment}"), 4, "name: needs either `ptu ="),
        (format!("{HEAD}{deployment}ptu = {{ tokens_per_second = -5 }}\n"), 5, "ptu: tokens_per"),
        (format!("{HEAD}{deployment}ptu = {{ }}\n"), 5, "missing field `tokens_per_second`"),
        (
            format!("{HEAD}{deployment}standard = {{}}\npace = {{ per_token = 5 }}\n"),
            6,
            "per_token: invalid type: integer `5`, expected a duration such as",
        ),
        (format!("{HEAD}{deployment}standard = {{}}\nspillover = \"b\"\n"), 6, "spillover: is no"),
        (format!("{HEAD}{deployment}standard = {{}}\nfaults = [{{}}]\n"), 6, "faults: a fault is"),
        (
            format!("{HEAD}{deployment}standard = {{}}\nfaults = [{{ status = 99 }}]\n"),
            6,
            "faults: status must lie",
        ),
        (format!("{HEAD}key = \"env:NOBODY_SET_THIS\"\n"), 3, "key: the variable NOBODY_SET_THIS"),
        (
            format!(
                "{HEAD}{deployment}standard = {{}}\nfaults = [{{ reset = true, share = 1 }}]\n"
            ),
            6,
            "faults: share belongs into `failures`",
        ),
        (
            format!("{HEAD}{deployment}standard = {{}}\nfailures = [{{ status = 500 }}]\n"),
            6,
            "failures: needs a share of the requests from 0 to 1",
        ),
        (
            format!(
                "{HEAD}{deployment}standard = {{}}\nfailures = [{{ status = 500, share = 0.7 }}, \
                 {{ reset = true, share = 0.4 }}]\n"
            ),
            6,
            "the shares add up to more than 1",
        ),
        (
            format!("{HEAD}{deployment}standard = {{}}\nfaults = [{{ refusal = \"tokns\" }}]\n"),
            6,
            "refusal: unknown variant `tokns`, expected one of `utilization`, `tokens`",
        ),
        (
            format!(
                "{HEAD}{deployment}standard = {{}}\nfaults = [{{ reset = true, in_stream = true }}]\n"
            ),
            6,
            "faults: in_stream belongs to a refusal",
        ),
        (
            format!("{HEAD}{deployment}standard = {{ too_large_for = \"1day\" }}\n"),
            5,
            "standard: too_large_for is for what is left",
        ),
        (
            format!("{HEAD}{deployment}ptu = {{ tokens_per_second = 5, largest_request = 7 }}\n"),
            5,
            "ptu: largest_request and too_large_for need each other",
        ),
        ("poison = [{ status = 500 }]\n".to_owned(), 1, "poison: needs what a request has"),
        (format!("{HEAD}outages = [{{ at = \"1s\" }}]\n"), 3, "outages: is `{ at = "),
        (
            format!("{HEAD}outages = [{{ every = \"1s\", lasts = \"1s\" }}]\n"),
            3,
            "outages: lasts until the next one begins",
        ),
        (HEAD.to_owned(), 2, "name: has no [[resources.deployments]]"),
        ("[[resources]]\nname = \"a b\"\n".to_owned(), 2, "name: is no host name"),
        (format!("{HEAD}{HEAD}"), 4, "name: another resource has this name"),
    ] {
        let told = told(&text);
        let start = format!("emulator.toml:{line}: ");
        let found = told.lines().any(|told| told.starts_with(&start) && told.contains(words));
        assert!(found, "{text}\n{told}");
    }
}

#[test]
fn a_key_in_the_wrong_place_is_not_repeated() {
    let told = told(&format!("{HEAD}keys = \"s3cret\"\n"));
    assert!(told.starts_with("emulator.toml:3: keys: invalid type: string"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
}
