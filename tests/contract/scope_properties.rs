//! A refusal never closes anything that it does not apply to: random requests, against a list of all
//! refusals.

use std::{sync::Mutex, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use proptest::prelude::*;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer,
    classify::{Hint, Reason},
};

use crate::{
    clock::{ms, pass, paused},
    leaf::{Answer, CLASSIC, Leaf, Seen, account},
};

/// A request. The number is the tokens that it may generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Chat(u64),
    Flex(u64),
    Priority(u64),
    Image,
    Speech,
    File,
    Poll,
    Cancel,
}

/// The answer of a backend to a request that reaches it.
#[derive(Clone, Copy, Debug)]
enum Said {
    Served,
    /// A refusal with only a hint.
    Plain(u64),
    Tokens(u64),
    Calls(u64),
    Quota,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    gap_ms: u64,
    asked: Asked,
    said: [Said; BACKENDS],
}

/// A refusal that is remembered.
struct Closed {
    backend: usize,
    /// `None` closes everything that can be closed.
    asked: Option<Asked>,
    /// Whether lighter requests are unaffected.
    by_weight: bool,
    until: Duration,
}

const BACKENDS: usize = 3;
const PATHS: [(Asked, &str); 5] = [
    (Asked::Image, "/openai/v1/images/generations"),
    (Asked::Speech, "/openai/v1/audio/speech"),
    (Asked::File, "/openai/v1/files"),
    (Asked::Poll, "/openai/v1/responses/resp_1"),
    (Asked::Cancel, "/openai/v1/responses/resp_1/cancel"),
];

impl Asked {
    fn request(self) -> Request<Full<Bytes>> {
        let chat = |tokens, tier| {
            let body =
                format!(r#"{{"messages":[],"max_tokens":{tokens},"service_tier":"{tier}"}}"#);
            Request::post(CLASSIC).body(Full::from(body)).unwrap()
        };
        match self {
            Self::Chat(tokens) => chat(tokens, "default"),
            Self::Flex(tokens) => chat(tokens, "flex"),
            Self::Priority(tokens) => chat(tokens, "priority"),
            _ => {
                let (_, path) = PATHS.iter().find(|(asked, _)| *asked == self).unwrap();
                let method = if self == Self::Poll { Method::GET } else { Method::POST };
                Request::builder().method(method).uri(*path).body(Full::default()).unwrap()
            }
        }
    }

    fn tokens(self) -> Option<u64> {
        match self {
            Self::Chat(tokens) | Self::Flex(tokens) | Self::Priority(tokens) => Some(tokens),
            _ => None,
        }
    }

    const fn is_free(self) -> bool {
        matches!(self, Self::Poll | Self::Cancel)
    }

    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

impl Said {
    fn answer(self) -> Answer {
        match self {
            Self::Served => Answer::ok(),
            Self::Plain(ms) => Answer::refused(ms),
            Self::Tokens(ms) => Answer::refused(ms).with("x-ratelimit-type", "Tokens"),
            Self::Calls(ms) => Answer::refused(ms).with("x-ratelimit-type", "Requests"),
            Self::Quota => Answer::status(429).because(Reason::Quota, Hint::None),
        }
    }

    fn closes(self, backend: usize, asked: Asked, now: Duration) -> Option<Closed> {
        let longest = 60_000;
        let (ms, by_weight) = match self {
            Self::Served => return None,
            Self::Plain(ms) => (ms, ms > longest),
            Self::Tokens(ms) => (ms, true),
            Self::Calls(ms) => (ms, false),
            Self::Quota => (longest, false),
        };
        let kind = (!matches!(self, Self::Quota)).then_some(asked);
        let until = now + Duration::from_millis(ms.min(longest));
        (!asked.is_free()).then_some(Closed { backend, asked: kind, by_weight, until })
    }
}

impl Closed {
    /// Whether it applies to a request: `None` if either answer is acceptable.
    fn is_about(&self, backend: usize, asked: Asked, now: Duration) -> Option<bool> {
        let kind = self.asked.is_none_or(|kind| kind.is_like(asked));
        if self.backend != backend || now >= self.until || asked.is_free() || !kind {
            return Some(false);
        }
        let refused = self.asked.and_then(Asked::tokens).filter(|_| self.by_weight);
        match (refused, asked.tokens()) {
            (Some(refused), Some(tokens)) if 2 * tokens <= refused => Some(false),
            (Some(refused), Some(tokens)) if 3 * tokens < 2 * refused => None,
            _ => Some(true),
        }
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    // Below and above, weights are alike.
    let tokens = || prop_oneof![200..2_000_u64, 200..1_000_000_u64];
    prop_oneof![
        6 => tokens().prop_map(Asked::Chat),
        2 => tokens().prop_map(Asked::Flex),
        1 => tokens().prop_map(Asked::Priority),
        1 => Just(Asked::Image),
        1 => Just(Asked::Speech),
        1 => Just(Asked::File),
        1 => Just(Asked::Poll),
        1 => Just(Asked::Cancel),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    let time = || prop_oneof![4 => 1..60_000_u64, 1 => Just(86_400_000)];
    prop_oneof![
        4 => Just(Said::Served),
        2 => time().prop_map(Said::Plain),
        4 => time().prop_map(Said::Tokens),
        1 => time().prop_map(Said::Calls),
        1 => Just(Said::Quota),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gap = prop_oneof![Just(0), 0..5_000_u64, 0..70_000_u64];
    let said = || [said(), said(), said()];
    let step =
        (gap, asked(), said()).prop_map(|(gap_ms, asked, said)| Step { gap_ms, asked, said });
    prop::collection::vec(step, 1..60)
}

fn index(seen: &Seen) -> usize {
    seen.host().trim_end_matches(".example").parse().unwrap()
}

async fn check(steps: &[Step], backends: usize) -> Result<(), TestCaseError> {
    let said = std::sync::Arc::new(Mutex::new([Said::Served; BACKENDS]));
    let leaf = {
        let said = std::sync::Arc::clone(&said);
        Leaf::new(move |seen| said.lock().unwrap()[index(seen)].answer())
    };
    let backend = |index: usize| {
        let endpoint = format!("https://{index}.example");
        Backend::new(index.to_string(), endpoint).unwrap().api_key("key")
    };
    let service = RegionRotateLayer::new(BackendPool::new((0..backends).map(backend)).unwrap())
        .layer(leaf.clone());
    let mut closed: Vec<Closed> = Vec::new();
    for step in steps {
        pass(ms(step.gap_ms)).await;
        *said.lock().unwrap() = step.said;
        let (now, before) = (leaf.elapsed(), leaf.len());
        let response = service.clone().oneshot(step.asked.request()).await.unwrap();
        let tried: Vec<usize> = leaf.seen()[before..].iter().map(index).collect();
        prop_assert_eq!(tried.len(), account(&response).attempts().len());
        let is_about = |backend| closed.iter().map(move |it| it.is_about(backend, step.asked, now));
        for &backend in &tried {
            prop_assert!(!is_about(backend).any(|it| it == Some(true)), "{backend} was closed");
        }
        if response.status() == 429 {
            for backend in (0..backends).filter(|backend| !tried.contains(backend)) {
                let is_closed = is_about(backend).any(|it| it != Some(false));
                prop_assert!(is_closed, "{backend} was open for {:?}", step.asked);
            }
        }
        closed.extend(tried.iter().filter_map(|&b| step.said[b].closes(b, step.asked, now)));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_refusal_never_closes_what_it_is_not_about(
        steps in steps(),
        backends in 1..=BACKENDS,
    ) {
        paused(check(&steps, backends))?;
    }
}
