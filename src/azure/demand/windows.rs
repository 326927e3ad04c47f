//! Estimates the text of a long value from windows of it.
//!
//! The value is divided into stretches, and one window of each is read, at a place that is drawn for
//! every request: a client cannot know which part of its body counts. What a window shows is taken for
//! the whole stretch, but never less than [`LEAST_SHARE`] of it as text. Content of images and files in
//! the body, which the model is not shown, is passed over as a whole.

use std::ops::Range;

use memchr::{memchr, memrchr};

use super::text::{ATTACHMENT_TOKENS, BYTES_PER_TOKEN, PromptText, Shown, is_content, is_hidden};
use crate::{
    azure::json::{Scan, Skipped, decoded_length, is_escaped, mark},
    random::split_mix,
};

impl PromptText {
    /// Adds the text of the long `value`, which is a range of `content`.
    pub(super) fn add_windows(
        &mut self,
        content: &[u8],
        value: Range<usize>,
        shown: Shown,
        mut draw: u64,
    ) {
        let stretch = value.len().div_ceil(WINDOWS).max(WINDOW_BYTES);
        let mut at = value.start;
        while at < value.end {
            let end = value.end.min(at + stretch);
            let room = (end - at).saturating_sub(WINDOW_BYTES);
            draw = split_mix(draw);
            let start = at + below(draw, room + 1);
            let window = start..end.min(start + WINDOW_BYTES);
            if let Some(data) = hidden_data(content, &value, &window, shown) {
                // One shorter than a stretch is missed as often as not.
                self.estimated += ATTACHMENT_TOKENS * per(stretch, data.len()).max(1.0);
                // Beside it may be text.
                let around = data.start.saturating_sub(at) + end.saturating_sub(data.end);
                self.bytes += around;
                // Its `type` is part of it.
                at = end.max(data.end + NEAR_BYTES);
                continue;
            }
            let read = Self::of_window(content, window.clone(), shown).tokens();
            let least = LEAST_SHARE * window.len() as f64 / BYTES_PER_TOKEN;
            self.estimated += read.max(least) * per(end - at, window.len());
            at = end;
        }
    }

    /// What a window shows.
    fn of_window(content: &[u8], window: Range<usize>, shown: Shown) -> Self {
        let mut text = Self::default();
        // Without a string's beginning or end, it is within one.
        let Some(first) = first_quote(content, &window) else {
            text.bytes = decoded_length(&content[window]);
            return text;
        };
        let mut is_after_data = false;
        if first.closes {
            let begun = &content[window.start..first.at];
            is_after_data = shown == Shown::Texts && begun.len() >= NEAR_BYTES && is_data(begun);
            text.bytes = if is_after_data { 0 } else { decoded_length(begun) };
        }
        let (content, ahead) = content.split_at(window.end);
        let mut key = &b""[..];
        // Whether the content of the last attachment has not been met.
        let mut lacks_content = false;
        let mut at = first.at + usize::from(first.closes);
        loop {
            at += mark(&content[at..]);
            match content.get(at) {
                None => break,
                Some(b'"') => {}
                Some(_) => {
                    at += 1;
                    continue;
                }
            }
            let mut scan = Scan::starting(content, at + 1);
            let Some(string) = scan.measure() else {
                // It goes on after the window.
                let raw = &content[at + 1..];
                let length = decoded_length(raw);
                let attachments = text.attachments;
                text.add_string(&Skipped { raw, length }, false, &mut key, shown);
                lacks_content |= text.attachments > attachments;
                break;
            };
            let is_key = scan.peek() == Some(b':');
            let (is_its_content, attachments) = (!is_key && is_content(key), text.attachments);
            text.add_string(&string, is_key, &mut key, shown);
            lacks_content = text.attachments > attachments || lacks_content && !is_its_content;
            at = scan.at();
        }
        // An attachment counts where its content is met.
        let is_before_data = lacks_content && has_data(&ahead[..ahead.len().min(WINDOW_BYTES)]);
        let elsewhere = usize::from(is_after_data) + usize::from(is_before_data);
        text.attachments = text.attachments.saturating_sub(elsewhere);
        text
    }
}

/// A quote that begins or ends a string.
struct Quote {
    at: usize,
    closes: bool,
}

/// The first such quote of a window that is known to be the one or the other. In JSON, a string begins
/// after one of `[{:,` and ends before one of `]}:,`; a quote where both seem true is passed over.
fn first_quote(content: &[u8], window: &Range<usize>) -> Option<Quote> {
    let mut at = window.start;
    loop {
        at += memchr(b'"', &content[at..window.end])?;
        let before = &content[..at];
        let previous = before[before.len().saturating_sub(NEAR_BYTES)..].trim_ascii_end().last();
        let next = content[at + 1..content.len().min(at + 1 + NEAR_BYTES)].trim_ascii_start();
        let opens = matches!(previous, Some(b'[' | b'{' | b':' | b','));
        let closes = matches!(next.first(), Some(b']' | b'}' | b':' | b','));
        if !is_escaped(before) && opens != closes {
            return Some(Quote { at, closes });
        }
        at += 1;
    }
}

/// The string around `window`, without its quotes, if it is the content of an image or a file.
fn hidden_data(
    content: &[u8],
    value: &Range<usize>,
    window: &Range<usize>,
    shown: Shown,
) -> Option<Range<usize>> {
    if shown != Shown::Texts || !is_data(&content[window.clone()]) {
        return None;
    }
    let start = value.start + memrchr(b'"', &content[value.start..window.start])?;
    let end = window.end + memchr(b'"', &content[window.end..value.end])?;
    let before = content[value.start..start].trim_ascii_end().strip_suffix(b":")?;
    let key = before.trim_ascii_end().strip_suffix(b"\"")?;
    let key = &key[key.len().saturating_sub(NEAR_BYTES)..];
    is_hidden(&key[memrchr(b'"', key)? + 1..]).then_some(start + 1..end)
}

/// Whether a text may be base64, in either alphabet (RFC 4648, sections 4 and 5).
fn is_data(text: &[u8]) -> bool {
    text.iter().all(is_of_data)
}

/// Whether a part of a text may be base64 and is longer than a word.
fn has_data(text: &[u8]) -> bool {
    text.split(|byte| !is_of_data(byte)).any(|part| part.len() >= NEAR_BYTES)
}

fn is_of_data(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte)
}

/// How many times `part` fits into `whole`.
fn per(whole: usize, part: usize) -> f64 {
    whole as f64 / part as f64
}

/// `draw` scaled to `0..limit`.
fn below(draw: u64, limit: usize) -> usize {
    ((u128::from(draw) * limit as u128) >> 64) as usize
}

/// The number of windows of a value, not counting those within images.
const WINDOWS: usize = 16;
const WINDOW_BYTES: usize = 256;
/// The least share of a stretch that counts as text. Text in which every character is escaped is a
/// third of its bytes; indentation leaves more.
const LEAST_SHARE: f64 = 0.25;
/// How far from a quote what precedes or follows it is looked for: indentation and short keys.
const NEAR_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use spillover_testing::prompts;

    use super::{super::Demand, *};

    /// The least, mean and largest ratio of the estimate to what a tree counts, of many draws.
    fn ratios(body: &str, expected: f64) -> [f64; 3] {
        let read = |draw: u64| Demand::read(body.as_bytes(), None, split_mix(draw));
        let mut ratios: Vec<_> = (0..200).map(|draw| read(draw).prompt / expected).collect();
        ratios.sort_by(f64::total_cmp);
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        [ratios[0], mean, ratios[ratios.len() - 1]]
    }

    /// The bounds of the ratio, and of its mean, by kind of body.
    fn bounds(name: &str) -> [std::ops::RangeInclusive<f64>; 2] {
        match name {
            // A window shows an attachment or not.
            "photographs by address" => [0.2..=1.7, 0.9..=1.0],
            "photographs in the body" => [1.0..=4.0, 1.0..=1.15],
            "small photographs and code" => [0.85..=1.4, 1.0..=1.15],
            "16 KiB of prose, then an image" => [0.9..=2.0, 1.0..=1.15],
            "tool calls, many tools" => [0.85..=1.35, 1.0..=1.1],
            _ => [0.88..=1.15, 0.98..=1.02],
        }
    }

    /// Prints the table of `benches/README.md` with `--nocapture`.
    #[test]
    fn a_long_body_of_any_kind_is_estimated_by_windows() {
        println!("| body | KiB | tokens | least | mean | most |\n|---|---:|---:|---:|---:|---:|");
        let mut wrong = Vec::new();
        for (name, body) in prompts::long_requests() {
            let expected = prompts::prompt_tokens(&body);
            let [all, means] = bounds(name);
            for (layout, text) in [
                ("", body.to_string()),
                (", indented", format!("{body:#}")),
                (", escaped", prompts::ascii(&body)),
            ] {
                let [least, mean, most] = ratios(&text, expected);
                println!(
                    "| {name}{layout} | {} | {expected:.0} | {least:.2} | {mean:.2} | {most:.2} |",
                    text.len() >> 10
                );
                if !(all.contains(&least) && all.contains(&most) && means.contains(&mean)) {
                    wrong.push(format!("{name}{layout}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn photographs_in_the_body_cost_what_they_do_in_any_order_of_members() {
        let data = "iVBORw0KGgo".repeat(14_000);
        for part in [
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,DATA"}}"#,
            r#"{"type":"image_url","image_url":{"detail":"high","url":"data:image/png;base64,DATA"}}"#,
            r#"{"image_url":{"url":"data:image/png;base64,DATA"},"type":"image_url"}"#,
            r#"{"type":"input_image","image_url":"data:image/png;base64,DATA","detail":"low"}"#,
            r#"{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,DATA"}"#,
            r#"{"type":"input_audio","input_audio":{"data":"DATA","format":"wav"}}"#,
            r#"{"input_audio":{"format":"wav","data":"DATA"},"type":"input_audio"}"#,
        ] {
            for indent in ["", "\n      ", "\n                          "] {
                let part =
                    part.replace(',', &format!(",{indent}")).replace('{', &format!("{{{indent}"));
                let part =
                    part.replace(&format!("base64,{indent}"), "base64,").replace("DATA", &data);
                let parts = [&*part; 4].join(&format!(",{indent}"));
                let body = format!(r#"{{"messages":[{{"role":"user","content":[{parts}]}}]}}"#);
                let [least, mean, most] = ratios(&body, 4.0 * ATTACHMENT_TOKENS);
                let of = &body[..body.len().min(160)];
                assert!(least >= 0.7 && most <= 4.5, "{of}: {least} to {most}");
                assert!((0.9..=1.2).contains(&mean), "{of}: {mean}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_text_is_estimated_at_less_than_a_fifth(
            stretches in prop::collection::vec((0..7_usize, 1..40_usize), 1..12),
            draw in any::<u64>(),
        ) {
            // What costs nothing, or what looks as if it did, between text.
            let stretch = |&(kind, count): &(usize, usize)| match kind {
                0 => json!("The tide went out at noon. ".repeat(40 * count)),
                1 => json!("iVBORw0KGgo".repeat(100 * count)),
                2 => json!(vec![json!([[[]], {}]); 100 * count]),
                3 => json!("\u{1}\u{2}".repeat(100 * count)),
                4 => json!("\",\"url\":\"".repeat(100 * count)),
                5 => json!(vec![json!({"role": ""}); 30 * count]),
                _ => json!({"url": "iVBORw0KGgo".repeat(100 * count)}),
            };
            let content: Vec<_> = stretches.iter().map(stretch).collect();
            for body in [
                json!({"messages": content}).to_string(),
                format!("{:#}", json!({"messages": content})),
            ] {
                let mut whole = PromptText::default();
                let mut scan = Scan::starting(body.as_bytes(), body.find('[').expect("a list"));
                whole.add_whole(body.as_bytes(), &mut scan, Shown::Texts).expect("JSON");
                let read = Demand::read(body.as_bytes(), None, draw).prompt;
                let whole = whole.tokens();
                prop_assert!(read >= 0.18 * whole - 2.0, "{read} instead of {whole}");
            }
        }

        #[test]
        fn no_window_panics(
            pieces in "(\"(role|type|content|url)\":?|image_url|\\\\|\\\\u[0-9d]{0,4}|[\\[\\]{}:, 1\"]){100,200}",
            draw in any::<u64>(),
        ) {
            let body = format!("{{\"messages\":[{}", pieces.repeat(20));
            for body in [format!("{body}]}}"), body] {
                let demand = Demand::read(body.as_bytes(), None, draw);
                prop_assert!(demand.prompt >= 0.0);
                let value = body.find('[').expect("a list")..body.len();
                PromptText::default().add_windows(body.as_bytes(), value, Shown::Texts, draw);
            }
        }
    }
}
