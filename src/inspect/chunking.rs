//! The parsers over the corpus: every chunking of a sample gives the same result.

use http::{Method, Request};
use proptest::{prelude::*, sample::Index};
use spillover_testing::corpus::Sample;

use super::{
    answer::Status,
    body,
    request_kind::RequestKind,
    stream::{Preamble, StreamVerdict},
};
use crate::classify::Reason;

/// The verdict on `pieces`, and how many of their bytes it took.
fn read(sample: &Sample, pieces: &[&[u8]]) -> (StreamVerdict, usize) {
    let (mut preamble, mut status) = (Preamble::default(), Status::default());
    let mut at = 0;
    for piece in pieces {
        at += piece.len();
        let beginning = if sample.is_stream() { preamble.push(piece) } else { status.push(piece) };
        if beginning != StreamVerdict::Undecided {
            return (beginning, at);
        }
    }
    let end = if sample.is_stream() { preamble.finish() } else { status.finish(&sample.body) };
    (end, at)
}

fn answers() -> Vec<Sample> {
    let mut samples = Sample::all();
    samples.retain(|sample| sample.status() == 200 && sample.method == "POST");
    samples
}

fn cut<'a>(text: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    cuts.extend([0, text.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn is_as_expected(sample: &Sample, beginning: &StreamVerdict) -> bool {
    match beginning {
        StreamVerdict::Refused(refused) => {
            let reason = format!("{:?}", refused.verdict.reason).to_ascii_lowercase();
            let expected = sample.verdict.replace('-', "");
            let status =
                if refused.verdict.reason == Reason::ContextLength { "400" } else { "429" };
            expected.starts_with(status) && expected.contains(&reason)
        }
        // One sample is refused by its head.
        StreamVerdict::Answer | StreamVerdict::Undecided => sample.verdict.starts_with("200"),
    }
}

#[test]
fn every_answer_that_is_cut_in_two_anywhere_gives_the_same() {
    for sample in answers() {
        let (whole, _) = read(&sample, &[&sample.body]);
        // A chat answer is not read as one of the Responses API.
        let is_read = sample.is_stream() || sample.path.contains("/responses");
        assert!(!is_read || is_as_expected(&sample, &whole), "{}: {whole:?}", sample.name);
        for at in 0..=sample.body.len() {
            let (front, back) = sample.body.split_at(at);
            assert_eq!(read(&sample, &[front, back]).0, whole, "{} at {at}", sample.name);
        }
    }
}

#[test]
fn every_answer_that_comes_byte_by_byte_is_decided_as_soon_as_it_can_be() {
    for sample in answers() {
        let (whole, _) = read(&sample, &[&sample.body]);
        let bytes: Vec<_> = sample.body.chunks(1).collect();
        let (decided, at) = read(&sample, &bytes);
        assert_eq!(decided, whole, "{}", sample.name);
        if sample.name == "json-served.http" {
            let status =
                sample.body.windows(12).position(|text| text == b"\"completed\",").unwrap();
            assert_eq!(at, status + 12, "its status is enough");
        }
        if sample.name == "stream-served.http" {
            let event = b"event: response.output_item.added\n";
            let name = sample.body.windows(event.len()).position(|text| text == event).unwrap();
            assert_eq!(at, name + event.len(), "the event's name is enough");
        }
    }
}

#[test]
fn every_refusal_is_judged_as_the_corpus_says() {
    for sample in Sample::all() {
        let status = sample.status().try_into().unwrap();
        // Stored objects are not read.
        if sample.status() == 200 || sample.method != "POST" {
            continue;
        }
        let verdict = body::judge(status, &sample.body);
        match verdict {
            None => assert!(sample.verdict.ends_with("passes"), "{}", sample.name),
            Some(verdict) => {
                let reason = format!("{:?}", verdict.reason).to_ascii_lowercase();
                let expected = sample.verdict.replace('-', "");
                assert!(expected.contains(&reason), "{}: {verdict:?}", sample.name);
            }
        }
    }
}

#[test]
fn the_corpus_asks_for_responses_where_it_says_so() {
    for sample in Sample::all() {
        let method: Method = sample.method.parse().unwrap();
        let request = Request::builder().method(method).uri(&sample.path).body(()).unwrap();
        let is_expected = sample.method == "POST" && sample.path.contains("/responses");
        assert_eq!(
            RequestKind::by(&request) == RequestKind::Response,
            is_expected,
            "{}",
            sample.name
        );
    }
}

proptest! {
    #[test]
    fn every_chunking_of_every_answer_gives_the_same(
        which in any::<Index>(),
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        let samples = answers();
        let sample = which.get(&samples);
        let (whole, _) = read(sample, &[&sample.body]);
        prop_assert_eq!(read(sample, &cut(&sample.body, &cuts)).0, whole, "{}", sample.name);
    }

    #[test]
    fn no_answer_panics_and_every_chunking_of_it_gives_the_same(
        noise in "((event|data|id): ?|error|response\\.(created|failed)|\"(error|status|type|code)\":|\"failed\"|null|429|[\\[\\]{}:, 1\"\\\\\r\n]){0,40}",
        cuts in prop::collection::vec(any::<Index>(), 0..12),
    ) {
        for mut sample in answers().into_iter().filter(|sample| {
            ["json-served.http", "stream-served.http"].contains(&sample.name.as_str())
        }) {
            sample.body = noise.clone().into_bytes();
            let (whole, _) = read(&sample, &[noise.as_bytes()]);
            prop_assert_eq!(read(&sample, &cut(noise.as_bytes(), &cuts)).0, whole);
            for status in [429, 529, 503, 404, 403, 400, 413] {
                body::judge(status.try_into().unwrap(), noise.as_bytes());
            }
        }
    }
}
