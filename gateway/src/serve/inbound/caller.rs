//! One client: its permissions and its limits.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::StatusCode;
use tower_spillover::fleet::{self, Fleet};

use crate::{
    config::{Client, Permissions},
    serve::{
        concurrency::Concurrency,
        refusal::Refusal,
        routing::{allowed_models::AllowedModels, client_home::ClientHome},
    },
};

/// The limit of a client's requests per second.
#[derive(Debug)]
enum RateLimit {
    /// Of this gateway.
    Own(Rate),
    /// Of all replicas together.
    OfFleet(fleet::Rate),
}

/// One client.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) models: AllowedModels,
    pub(crate) home: ClientHome,
    pub(crate) class: Option<String>,
    pub(crate) may: Permissions,
    rate: Option<RateLimit>,
    /// Its requests in flight; if no key is required, the requests of the address count instead.
    pub(crate) under_way: Option<Concurrency>,
    /// Its own limit on them, instead of a share of the total.
    pub(crate) concurrency: Option<usize>,
}

impl Caller {
    /// Takes one request from the client's rate limit.
    pub(crate) async fn take(&self, now: Instant) -> Result<(), Refusal> {
        let (taken, limit) = match &self.rate {
            None => return Ok(()),
            Some(RateLimit::Own(rate)) => (rate.take(now), rate.per_second),
            Some(RateLimit::OfFleet(rate)) => (rate.take().await, rate.per_second()),
        };
        taken.map_err(|wait| {
            Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "429",
                format!(
                    "This client may send {limit} requests per second; try again in {} ms.",
                    wait.as_nanos().div_ceil(1_000_000)
                ),
            )
            .retry_after(wait)
        })
    }

    /// The anonymous client, if no key is required; it accepts any key.
    pub(crate) fn open(home: impl Fn(&str, &AllowedModels) -> ClientHome) -> Self {
        let may = Permissions {
            max_wait: true,
            class: true,
            no_spill: true,
            trace: true,
            backend: true,
            operate: false,
        };
        let (name, models) = ("open".to_owned(), AllowedModels::default());
        let home = home(&name, &models);
        let (class, rate, under_way, concurrency) = (None, None, None, None);
        Self { name, models, home, class, may, rate, under_way, concurrency }
    }

    /// Keeps the requests in flight of `before` and, if the rate is the same, what it has used of
    /// it. The replicas of a `fleet` keep the rate together.
    pub(crate) fn new(
        client: &Client,
        home: impl Fn(&str, &AllowedModels) -> ClientHome,
        before: Option<&Self>,
        fleet: Option<&Fleet>,
    ) -> Self {
        let rate = client.requests_per_second.map(|per_second| {
            if let Some(fleet) = fleet {
                // The store knows what was used.
                return RateLimit::OfFleet(fleet::Rate::new(fleet, &client.name, per_second));
            }
            let kept = match before.and_then(|caller| caller.rate.as_ref()) {
                Some(RateLimit::Own(rate)) => Some(rate.clone()),
                _ => None,
            };
            let kept = kept.filter(|rate| rate.per_second.to_bits() == per_second.to_bits());
            RateLimit::Own(kept.unwrap_or_else(|| Rate::new(per_second)))
        });
        let models = AllowedModels::new(client.models.clone());
        Self {
            home: home(client.owner(), &models),
            name: client.name.clone(),
            models,
            class: client.class.clone(),
            may: client.may,
            rate,
            under_way: Some(before.and_then(|caller| caller.under_way.clone()).unwrap_or_default()),
            concurrency: client.concurrency,
        }
    }
}

/// A token bucket with a capacity of one second, but at least one request.
#[derive(Clone, Debug)]
struct Rate {
    per_second: f64,
    used: Arc<Mutex<Used>>,
}

#[derive(Debug, Default)]
struct Used {
    requests: f64,
    at: Option<Instant>,
}

impl Rate {
    fn new(per_second: f64) -> Self {
        Self { per_second: per_second.max(1e-6), used: Arc::default() }
    }

    /// The error is the time until there is room.
    fn take(&self, now: Instant) -> Result<(), Duration> {
        let depth = self.per_second.max(1.0);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = used.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        used.at = Some(used.at.map_or(now, |at| at.max(now)));
        used.requests = (used.requests - passed * self.per_second).max(0.0);
        let above = used.requests + 1.0 - depth;
        if above > 1e-9 {
            return Err(Duration::try_from_secs_f64(above / self.per_second)
                .unwrap_or(Duration::from_secs(3_600)));
        }
        used.requests += 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_refuses_until_exactly_the_time_it_names() {
        let rate = Rate::new(2.0);
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let now = Instant::now();
        assert!(rate.take(now).is_ok() && rate.take(now).is_ok());
        assert_eq!(rate.take(now), Err(Duration::from_millis(500)));
        assert!(rate.take(now + Duration::from_millis(499)).is_err());
        assert!(rate.take(now + Duration::from_millis(500)).is_ok());
    }
}
