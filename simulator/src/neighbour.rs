//! Another application on the same PTU, unknown to the simulated one.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use super::{
    drive, hints,
    load::{Ask, Load, Shape, Traffic},
    network::{Number, Run},
    plan::{PTU, PTU_SERVER, RESOURCES},
    region_chain,
};
use tower_spillover::ConfigError;

/// Another application that uses a part of the PTU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its mean load, as a share of the PTU's drain rate.
    pub share: f64,
    /// Whether its load comes in bursts, as in [`Load::OnOff`].
    pub is_bursty: bool,
    /// How it reacts to refusals.
    pub when_refused: WhenRefused,
    /// When it appears, counted from the beginning of the warm-up, and how long it stays; `None` if it
    /// is always there.
    pub stays: Option<(Duration, Duration)>,
}

/// How a neighbour reacts to a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenRefused {
    /// Sends the request elsewhere.
    Drops,
    /// Waits for the hint and retries, by the rule of the reference script, for up to 4 s.
    Hammers,
}

impl Neighbour {
    pub(super) fn draw(
        &self,
        seed: u64,
        ptu_rate: f64,
        length: Duration,
    ) -> Result<Traffic, ConfigError> {
        let load = |rate| match self.is_bursty {
            true => Load::OnOff { rate },
            false => Load::Poisson { rate },
        };
        let shape = Shape::default();
        let unit = load(1.0).draw(seed, Duration::ZERO, Some(Duration::ZERO), &shape)?.mean_load;
        let rate = self.share * ptu_rate / unit;
        let mut traffic = load(rate).draw(!seed, Duration::ZERO, Some(length), &shape)?;
        if let Some((at, lasts)) = self.stays {
            traffic.asks.retain(|ask| (at..at.saturating_add(lasts)).contains(&ask.at));
        }
        Ok(traffic)
    }
}

/// Sends the neighbour's requests.
pub(super) async fn live(run: Arc<Run>, traffic: Traffic, when_refused: WhenRefused) {
    for (index, ask) in traffic.asks.into_iter().enumerate() {
        if ask.at > run.now() {
            run.sleep_until(ask.at).await;
        }
        tokio::spawn(send(Arc::clone(&run), FIRST_NEIGHBOUR_INDEX + index, ask, when_refused));
    }
}

async fn send(run: Arc<Run>, index: usize, ask: Ask, when_refused: WhenRefused) {
    let arrived = run.now();
    for attempt in 0.. {
        run.travel(PTU_SERVER, index, 2 * attempt).await;
        let handed = run.hand_over(PTU_SERVER, request(&run, index, &ask)).await;
        let Ok(answer) = handed.answer(&run).await else { return };
        if answer.status().is_success() {
            let _ = answer.into_body().collect().await;
            run.look();
            return;
        }
        let answer = run.plan.hints.apply(answer, run.plan.seed, [index as u64, attempt]);
        run.travel(PTU_SERVER, index, 2 * attempt + 1).await;
        if when_refused == WhenRefused::Drops {
            return;
        }
        let Some(until) = hints::read(&answer).map(|hint| run.now() + hint) else { return };
        if until > arrived + PATIENCE {
            return;
        }
        run.sleep_until(until).await;
    }
}

fn request(run: &Run, index: usize, ask: &Ask) -> Request<Full<Bytes>> {
    let uri = region_chain::uri(RESOURCES[0], PTU);
    let mut request = drive::request(&run.plan, ask, "x", uri);
    request.extensions_mut().insert(Number(index));
    request
}

/// Offset of its request numbers, which separates its draws from those of this application.
const FIRST_NEIGHBOUR_INDEX: usize = 1 << 40;
const PATIENCE: Duration = Duration::from_secs(4);
