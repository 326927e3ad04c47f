//! Waits in prose: "Please retry after 45 seconds", "Try again in 50 seconds".

use std::time::Duration;

use crate::classify::duration;

/// The first wait that a message asks for. Numbers without a unit or phrase do not count: a message
/// also states the limit.
///
/// Azure OpenAI writes "retry after 45 seconds", API Management "Try again in 50 seconds" and, for a
/// quota, "replenished in 00:12:34", models as a service "wait 29 seconds before retrying"; similar
/// services write "try again in 6m0s". At most `u32::MAX` seconds.
pub(crate) fn wait(message: &[u8]) -> Option<Duration> {
    let message = message.to_ascii_lowercase();
    let after = PHRASES.iter().flat_map(|phrase| {
        memchr::memmem::find_iter(&message, phrase).map(|at| (at, &message[at + phrase.len()..]))
    });
    let waits = after.filter_map(|(at, rest)| Some((at, clock(rest).or_else(|| amounts(rest))?)));
    waits.min_by_key(|(at, _)| *at).map(|(_, wait)| wait)
}

/// `hh:mm:ss`, with days before a dot.
fn clock(text: &[u8]) -> Option<Duration> {
    let text = text.trim_ascii_start();
    let (mut seconds, first) = digits(text)?;
    let mut rest = &text[first..];
    if rest.first() == Some(&b'.') {
        let (hours, length) = digits(&rest[1..])?;
        seconds = seconds.saturating_mul(24).saturating_add(hours);
        rest = &rest[1 + length..];
    }
    for _ in 0..2 {
        rest = rest.strip_prefix(b":")?;
        let (next, length) = digits(rest)?;
        seconds = seconds.saturating_mul(60).saturating_add(next);
        rest = &rest[length..];
    }
    Some(Duration::from_secs(seconds.min(MAX_WAIT_S)))
}

/// `45 seconds`, `1.5s`, `1 minute and 5 seconds`, `6m0s`: numbers with their units.
fn amounts(text: &[u8]) -> Option<Duration> {
    let seconds = duration::at_start(text)?;
    Some(Duration::from_secs_f64(seconds.min(MAX_WAIT_S as f64)))
}

/// The number at the start, at most [`MAX_WAIT_S`], and its length.
fn digits(text: &[u8]) -> Option<(u64, usize)> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = text[..length]
        .iter()
        .fold(0_u64, |value, digit| (value * 10 + u64::from(digit - b'0')).min(MAX_WAIT_S));
    (length > 0).then_some((value, length))
}

/// In lower case.
const PHRASES: [&[u8]; 8] = [
    b"retry after ",
    b"retry in ",
    b"try again after ",
    b"try again in ",
    b"please wait ",
    b"retry again in ",
    b"replenished in ",
    b"resets in ",
];
/// In seconds: larger than any plausible wait, small enough not to overflow.
const MAX_WAIT_S: u64 = u32::MAX as u64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn assert_wait(message: &str, ms: impl Into<Option<u64>>) {
        assert_eq!(wait(message.as_bytes()), ms.into().map(Duration::from_millis), "{message}");
    }

    #[test]
    fn the_services_sentences_are_understood() {
        assert_wait(
            "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version \
             2024-02-01 have exceeded token rate limit of your current OpenAI S0 pricing tier. \
             Please retry after 86400 seconds. Please go here: https://aka.ms/oai/quotaincrease",
            86_400_000,
        );
        assert_wait("… AIServices S0 pricing tier. … Please retry after 45 seconds.", 45_000);
        assert_wait("Rate limit is exceeded. Try again in 50 seconds.", 50_000);
        assert_wait(
            "Rate limit of 10 per 60s exceeded for UserByModelByMinute. Please wait 29 seconds \
             before retrying.",
            29_000,
        );
        assert_wait("Out of call volume quota. Quota will be replenished in 00:12:34.", 754_000);
        assert_wait("Quota will be replenished in 6.23:59:59.", 604_799_000);
    }

    #[test]
    fn servers_like_it_are_understood() {
        assert_wait("Please try again in 858ms. Visit https://…", 858);
        assert_wait("Please try again in 6m0s.", 360_000);
        assert_wait("Please try again in 1.5s", 1_500);
        assert_wait("please try again in 1h2m3.25s", 3_723_250);
        assert_wait("Retry after 1 minute and 5 seconds.", 65_000);
        assert_wait("Try again after 1 second", 1_000);
    }

    #[test]
    fn a_number_without_its_phrase_or_unit_is_no_wait() {
        for silent in [
            "",
            "Too many requests",
            "Rate limit of 10 per 60s exceeded",
            "retry after the window",
            "Please retry after 45.",
            "Please retry after -5 seconds",
            "try again in",
            "try again in ",
            "replenished in 00:12",
            "retry after 5 parsecs",
        ] {
            assert_wait(silent, None);
        }
        assert_wait("retry after a while, or try again in 7 seconds", 7_000);
    }

    #[test]
    fn absurd_numbers_are_capped() {
        let longest = MAX_WAIT_S * 1_000;
        for unit in ["s", "minutes", "days"] {
            assert_wait(&format!("retry after {} {unit}", "9".repeat(400)), longest);
        }
        assert_wait("retry after 99999999999999:99999999999999:99999999999999", longest);
    }

    proptest! {
        #[test]
        fn no_message_panics(
            text in "((retry after|try again in) ?|[0-9.:]{1,12}|[a-z]{1,2}| ){0,20}",
            noise in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            wait(text.as_bytes());
            wait(&[b"retry after ", &noise[..]].concat());
        }

        #[test]
        fn any_whole_number_of_seconds_is_read(seconds in 0..=MAX_WAIT_S) {
            let read = wait(format!("Please retry after {seconds} seconds.").as_bytes());
            prop_assert_eq!(read, Some(Duration::from_secs(seconds)));
        }
    }
}
