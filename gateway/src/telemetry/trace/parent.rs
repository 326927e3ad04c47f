//! `traceparent` and `tracestate`: a request's parent in its caller's trace.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// Reads the caller's trace context, and removes invalid headers from `headers`.
pub(crate) fn read(headers: &mut HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let parent = values.next().filter(|_| values.next().is_none());
    let Some((trace, span, flags)) = parent.and_then(|value| parse(value.as_bytes())) else {
        // W3C Trace Context section 3.3: without a valid parent, the state is ignored.
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
        return None;
    };
    let state = state(headers).unwrap_or_else(|| {
        headers.remove(TRACESTATE);
        TraceState::NONE
    });
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Writes `span` as the parent into `headers`.
pub(crate) fn write(span: &SpanContext, headers: &mut HeaderMap) {
    let (trace, id) = (span.trace_id(), span.span_id());
    let text = format!("00-{trace}-{id}-{:02x}", span.trace_flags());
    let value = HeaderValue::try_from(text).expect("digits and dashes");
    headers.insert(TRACEPARENT, value);
}

/// W3C Trace Context section 3.2.2. Ignores what later versions append.
fn parse(value: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (known, rest) = value.split_at_checked(55)?;
    let [version] = hex(&known[..2])?;
    let fits = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => matches!(rest, [] | [b'-', ..]),
    };
    if !fits || [2, 35, 52].iter().any(|&dash| known[dash] != b'-') {
        return None;
    }
    let trace = TraceId::from_bytes(hex(&known[3..35])?);
    let span = SpanId::from_bytes(hex(&known[36..52])?);
    let [flags] = hex(&known[53..])?;
    let is_one = trace != TraceId::INVALID && span != SpanId::INVALID;
    is_one.then(|| (trace, span, TraceFlags::new(flags) & TraceFlags::SAMPLED))
}

/// `None` if any part of it is invalid.
fn state(headers: &HeaderMap) -> Option<TraceState> {
    let lines = headers.get_all(TRACESTATE).iter().map(HeaderValue::to_str);
    lines.collect::<Result<Vec<_>, _>>().ok()?.join(",").parse().ok()
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("visible");
        pairs.iter().map(|&(name, text)| (HeaderName::from_static(name), value(text))).collect()
    }

    fn read_one(value: &str) -> Option<SpanContext> {
        read(&mut headers(&[("traceparent", value)]))
    }

    #[test]
    fn a_parent_is_read_with_its_ids_and_whether_it_is_sampled() {
        let span = read_one(GOOD).expect("it is good");
        assert_eq!(span.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span.span_id().to_string(), "00f067aa0ba902b7");
        assert!(span.is_sampled() && span.is_remote());
        let unsampled = read_one(&GOOD.replace("-01", "-00")).expect("it is good");
        assert!(!unsampled.is_sampled());
    }

    #[test]
    fn a_later_version_may_append_what_it_likes() {
        let later = GOOD.replace("00-4", "cc-4");
        assert!(read_one(&later).is_some());
        assert!(read_one(&format!("{later}-what-the-future-brings")).is_some());
        assert!(read_one(&format!("{later}.what")).is_none());
    }

    #[test]
    fn a_parent_with_any_fault_is_none_and_goes_with_its_state() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replace("00-4", "ff-4"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &format!("{GOOD}-"),
            &GOOD[..54],
            "00-4bf92f3577b34da6a3ce929d0e0e473-000f067aa0ba902b7-01",
        ] {
            let mut headers = headers(&[("traceparent", bad), ("tracestate", "a=b")]);
            assert!(read(&mut headers).is_none(), "{bad}");
            assert!(headers.is_empty(), "{bad}");
        }
        assert!(read(&mut HeaderMap::new()).is_none());
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = headers(&[("traceparent", GOOD)]);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(read(&mut headers).is_none());
    }

    #[test]
    fn a_state_that_cannot_be_read_is_dropped_alone() {
        let mut good = headers(&[("traceparent", GOOD), ("tracestate", "a=1, b@v=2")]);
        good.append(TRACESTATE, HeaderValue::from_static("c=3"));
        let span = read(&mut good).expect("it is good");
        assert_eq!(span.trace_state().header(), "a=1,b@v=2,c=3");
        assert_eq!(good.get_all(TRACESTATE).iter().count(), 2, "the lines stay as they are");
        let mut bad = headers(&[("traceparent", GOOD), ("tracestate", "A B C")]);
        assert!(read(&mut bad).is_some());
        assert!(!bad.contains_key(TRACESTATE));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_panics(
            trace in 1_u128..,
            span in 1_u64..,
            flags in any::<u8>(),
            noise in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let (trace, span) = (TraceId::from(trace), SpanId::from(span));
            let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
            let context = SpanContext::new(trace, span, flags, true, TraceState::NONE);
            let mut headers = HeaderMap::new();
            write(&context, &mut headers);
            prop_assert_eq!(read(&mut headers), Some(context));
            let _ = parse(&noise);
        }
    }
}
