use proptest::prelude::*;

use super::*;
use crate::azure::{fields, json};

const FORM: &str = "multipart/form-data; boundary=XX";

/// The body after a rename to `to`, in pieces of `piece` bytes, and the number of models that it
/// named.
fn renamed(kind: &str, body: &[u8], piece: usize) -> (Vec<u8>, usize) {
    let kind = HeaderValue::from_str(kind).unwrap();
    let mut rename = ModelRename::new(Some(&kind), b"\"to\"", "to");
    let mut out = Vec::new();
    for piece in body.chunks(piece.max(1)) {
        rename.push(&Bytes::copy_from_slice(piece), |piece| out.extend_from_slice(&piece));
    }
    rename.finish(|held| out.extend_from_slice(&held));
    (out, rename.begun())
}

fn expect(kind: &str, body: &str, expected: &str) {
    for piece in [1, 2, 3, 7, 16, 64, body.len()] {
        let (out, _) = renamed(kind, body.as_bytes(), piece);
        assert_eq!(String::from_utf8_lossy(&out), expected, "in pieces of {piece}: {body}");
    }
}

#[test]
fn the_top_level_model_is_renamed_however_the_body_is_cut() {
    for (body, expected) in [
        (r#"{"model":"a"}"#, r#"{"model":"to"}"#),
        (r#"{"model":"","x":1}"#, r#"{"model":"to","x":1}"#),
        (r#"{"x":1,"model":"a"}"#, r#"{"x":1,"model":"to"}"#),
        (
            " {\t\"model\" :\n\"a\\\"b\\\\\" , \"n\" : -1.5e+3 } ",
            " {\t\"model\" :\n\"to\" , \"n\" : -1.5e+3 } ",
        ),
        (r#"{"mod\u0065l":"a"}"#, r#"{"mod\u0065l":"to"}"#),
        (r#"{"\u006D\u006f\u0064\u0065\u006c":"a"}"#, r#"{"\u006D\u006f\u0064\u0065\u006c":"to"}"#),
        (
            r#"{"model":"a","m":{"model":"x"},"model":null,"model":"b"}"#,
            r#"{"model":"to","m":{"model":"x"},"model":null,"model":"to"}"#,
        ),
        (
            r#"{"a":[{"model":"]"},"}{",[[]]],"b":"\"model\":\"x\"","c":true,"model":"a"}"#,
            r#"{"a":[{"model":"]"},"}{",[[]]],"b":"\"model\":\"x\"","c":true,"model":"to"}"#,
        ),
        ("\u{feff}{\"model\":\"a\"}", "\u{feff}{\"model\":\"to\"}"),
    ] {
        expect("application/json", body, expected);
    }
}

#[test]
fn what_is_no_top_level_model_stays() {
    for body in [
        "{}",
        "",
        r#"{"model":4,"models":"b","mode":"c","":"d","model\u0000":"e"}"#,
        r#"{"model":{"model":"a"}}"#,
        r#"{"\u006D\u006f\u0064\u0065\u006c\u006c":"a"}"#,
        r#"[{"model":"a"}]"#,
        r#"{"messages":[{"model":"a"}]}{"model":"b"}"#,
        "RIFF\u{0}\"model\":\"a\"",
    ] {
        expect("application/json", body, body);
    }
    expect("multipart/form-data", "--XX\r\n", "--XX\r\n");
}

/// Like [`expect`], for a body that must name a model.
fn expect_named(kind: &str, body: &str, expected: &str) {
    let header = HeaderValue::from_str(kind).unwrap();
    for piece in [1, 2, 3, 7, 16, 64, body.len().max(1)] {
        let rename = ModelRename::new(Some(&header), b"\"to\"", "to");
        let (mut rename, mut out) = (rename.adding(Some(&header)), Vec::new());
        for piece in body.as_bytes().chunks(piece) {
            rename.push(&Bytes::copy_from_slice(piece), |piece| out.extend_from_slice(&piece));
        }
        rename.finish(|held| out.extend_from_slice(&held));
        assert_eq!(String::from_utf8_lossy(&out), expected, "in pieces of {piece}: {body}");
    }
}

#[test]
fn a_model_that_is_missing_is_named_at_the_end_and_one_that_is_not_in_its_place() {
    for (body, expected) in [
        ("{}", r#"{"model":"to"}"#),
        (r#" { "x" : [{"model":"a"}] } "#, r#" { "x" : [{"model":"a"}] ,"model":"to"} "#),
        (r#"{"x":"}"}"#, r#"{"x":"}","model":"to"}"#),
        (r#"{"x":1,"model":"a"}"#, r#"{"x":1,"model":"to"}"#),
        ("[]", "[]"),
        (r#"{"x":1"#, r#"{"x":1"#),
        ("", ""),
    ] {
        expect_named("application/json", body, expected);
    }
    let file = part("name=\"file\"; filename=\"a\"", "x\r\n--XY\r\n-");
    let own = part("name=\"model\"", "to");
    expect_named(FORM, &format!("{file}--XX--\r\n"), &format!("{file}{own}--XX--\r\n"));
    let named = format!("{}{file}--XX--\r\nepilogue", part("name=\"model\"", "w"));
    expect_named(FORM, &named, &format!("{own}{file}--XX--\r\nepilogue"));
    let dashes = format!("{}--XX-\r\n", part("name=\"a\"", "--XX-x"));
    expect_named(FORM, &dashes, &dashes);
}

fn part(head: &str, content: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
}

#[test]
fn a_part_called_model_is_renamed_wherever_it_stands() {
    let file = part("name=\"file\"; filename=\"model\"", "name=\"model\"\r\n--X\0\r\n\r\n--XY\r\n");
    for (before, after) in [("", &*file), (&file, ""), (&file, &*file)] {
        let form = |model: &str| {
            format!("{before}{}{after}--XX--\r\n--XX epilogue", part("name=model", model))
        };
        for model in ["whisper-1", "", "a\r\n--X\r\n", "to"] {
            expect(FORM, &form(model), &form("to"));
        }
    }
    let preamble = |model: &str| {
        format!(
            "preamble --XX\r\n--XX \t\r\nContent-Length: {}\r\nContent-Disposition: x; name=\"model\"\r\n\r\n{model}\r\n--XX--",
            model.len()
        )
    };
    expect(FORM, &preamble("whisper-1"), &preamble("to"));
}

#[test]
fn a_form_goes_on_behind_what_is_broken() {
    let model = part("name=model", "a");
    let to = part("name=model", "to");
    for around in [
        "--XXjunk\r\n".to_owned(),
        "--XX\r\nno header\r\n\r\n1\r\n".to_owned(),
        "--XX\r\nno end\r\n".to_owned(),
        format!("--XX\r\n{}\r\n\r\n1\r\n", "x".repeat(20_000)),
    ] {
        expect(
            FORM,
            &format!("{around}{model}{around}{model}--XX--"),
            &format!("{around}{to}{around}{to}--XX--"),
        );
    }
}

#[test]
fn it_is_known_as_soon_as_one_model_has_passed_or_none_can_come() {
    let knows = |kind: &'static str, body: &str| {
        let mut reader = ModelReader::of(Some(&HeaderValue::from_static(kind)));
        reader.find(body.as_bytes());
        reader.knows()
    };
    for (body, expected) in [
        (r#"{"model":"a""#, true),
        (r#"{"model":"a"#, false),
        (r#"{"x":{"model":"a"}"#, false),
        (r#"{"x":1}"#, true),
        ("RIFF", true),
        ("  ", false),
    ] {
        assert_eq!(knows("application/json", body), expected, "{body}");
    }
    let model = part("name=model", "a");
    assert!(!knows(FORM, &model) && knows(FORM, &format!("{model}--XX\r\n")));
    assert!(!knows(FORM, &part("name=file", "a")) && knows(FORM, "--XX--"));
    assert!(knows("multipart/form-data", "anything"));
}

fn object() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        Just(r#""model":"a""#.to_owned()),
        Just(r#""mod\u0065l" : "a\"b""#.to_owned()),
        Just(r#""x":{"model":"a","y":["}",1]}"#.to_owned()),
        Just(r#""model":null"#.to_owned()),
        ("(model|[\"\\\\]|\\PC){0,8}", -9..9).prop_map(|(text, number)| {
            format!("{}:{number}", serde_json::to_string(&text).unwrap())
        }),
        "(model|[\"\\\\]|\\PC){0,20}"
            .prop_map(|text| { format!(r#""y":{}"#, serde_json::to_string(&text).unwrap()) }),
    ];
    prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(" , ")))
}

proptest! {
    #[test]
    fn a_passing_body_is_renamed_as_one_in_memory(body in object(), piece in 1..40_usize) {
        let (text, mut expected, mut count, mut copied) = (body.as_bytes(), Vec::new(), 0, 0);
        json::members(text, |key, scan| {
            let value = scan.skip()?;
            if fields::is_model(&text[key]) && text[value.start] == b'"' {
                expected.extend_from_slice(&text[copied..value.start]);
                expected.extend_from_slice(b"\"to\"");
                copied = value.end;
                count += 1;
            }
            Some(())
        }).expect("an object");
        expected.extend_from_slice(&text[copied..]);
        let (out, models) = renamed("application/json", text, piece);
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
        prop_assert_eq!(models, count);
    }

    #[test]
    fn any_bytes_pass_alike_however_they_are_cut(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 0..25),
        cut in 1..9_usize,
        is_form in any::<bool>(),
    ) {
        let body = pieces.concat();
        let kind = if is_form { FORM } else { "application/json" };
        prop_assert_eq!(renamed(kind, &body, cut), renamed(kind, &body, body.len()));
    }

    #[test]
    fn other_parts_never_change(file in prop::collection::vec(any::<u8>(), 0..200), cut in 1..60_usize) {
        let form = |model: &[u8]| {
            let before = b"--XX\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";
            let between = b"\r\n--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
            [before, &*file, between, model, b"\r\n--XX--\r\n"].concat()
        };
        prop_assert_eq!(renamed(FORM, &form(b"whisper-1"), cut).0, form(b"to"));
    }
}

const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"\\",
    b"\"model\"",
    b"\"a\"",
    b"1",
    b" ",
    b"\xef",
    b"--XX",
    b"\r\n",
    b"--",
    b"\r",
    b"\n",
    b"-",
    b"Content-Disposition: form-data; name=model",
    b"\r\n\r\n",
    b"Content-Length: 3",
];
