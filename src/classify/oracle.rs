//! Compares hints with the test vectors of openai-python, an independent source.

use std::time::Duration;

use super::{
    Hint,
    heads::{NOW, head},
};

/// What openai-python 3.3.1 does with a header (`tests/test_client.py`).
#[derive(Clone, Copy, Debug)]
enum Theirs {
    /// Waits this many seconds.
    Waits(u64),
    /// Ignores the header and backs off on its own.
    BacksOff,
    /// Gives up immediately, since the wait exceeds its cap of 120 s.
    GivesUp,
}
use Theirs::{BacksOff, GivesUp, Waits};

impl Theirs {
    /// The hint that leads to the same behaviour in a consumer with the same cap.
    fn as_hint(self) -> Hint {
        match self {
            Waits(seconds) => Hint::After(Duration::from_secs(seconds)),
            BacksOff => Hint::None,
            GivesUp => Hint::TooLong,
        }
    }
}

#[test]
fn retry_after_is_read_as_openai_python_reads_it() {
    for (value, theirs) in [
        ("20", Waits(20)),
        ("60", Waits(60)),
        ("61", Waits(61)),
        ("120", Waits(120)),
        ("Fri, 29 Sep 2023 16:26:57 GMT", Waits(20)),
        ("Fri, 29 Sep 2023 16:27:37 GMT", Waits(60)),
        ("Fri, 29 Sep 2023 16:28:37 GMT", Waits(120)),
        ("-10", BacksOff),
        ("inf", BacksOff),
        ("nan", BacksOff),
        ("Zun, 29 Sep 2023 16:26:27 GMT", BacksOff),
        ("Fri, 29 Sep 100000 16:26:37 GMT", BacksOff),
        ("", BacksOff),
    ] {
        assert_eq!(read("retry-after", value), theirs.as_hint(), "{value:?}");
    }
    assert_eq!(read("retry-after-ms", "120000"), Waits(120).as_hint());
}

#[test]
fn where_it_differs_from_openai_python_it_means_to() {
    let ms = |ms| Hint::After(Duration::from_millis(ms));
    let zero = "a zero differs from no hint: the service allows an attempt at once";
    let cap = "what is too long for a request is the consumer's cap, not the reader's";
    let absurd = "a server that asks for 10^35 seconds does not want a quick retry";
    for (name, value, theirs, ours, reason) in [
        ("retry-after", "0", BacksOff, Hint::Zero, zero),
        ("retry-after", "Fri, 29 Sep 2023 16:26:37 GMT", BacksOff, Hint::Zero, zero),
        ("retry-after", "Fri, 29 Sep 2023 16:26:27 GMT", BacksOff, Hint::Zero, zero),
        ("retry-after", "99999999999999999999999999999999999", BacksOff, Hint::TooLong, absurd),
        ("retry-after", "121", GivesUp, ms(121_000), cap),
        ("retry-after", "Fri, 29 Sep 2023 16:28:38 GMT", GivesUp, ms(121_000), cap),
        ("retry-after-ms", "120001", GivesUp, ms(120_001), cap),
    ] {
        assert_eq!(read(name, value), ours, "{value}: {reason}");
        assert_ne!(ours, theirs.as_hint(), "{value} belongs into the table of agreements");
    }
}

fn read(name: &'static str, value: &str) -> Hint {
    Hint::read(&head(&[(name, value)]), NOW)
}
