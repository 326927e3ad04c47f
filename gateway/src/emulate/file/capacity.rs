//! Reads and validates the capacity of a deployment.

use spillover_emulator::{Deployment, Ptu, Standard};
use toml::Spanned;

use super::{
    Check,
    text::{DeploymentText, PtuText, StandardText},
};

impl Check<'_> {
    /// A deployment with its capacity, of exactly one kind.
    pub(super) fn limited(&mut self, text: &DeploymentText) -> Option<Deployment> {
        let name = text.name.get_ref().clone();
        match (&text.ptu, &text.standard) {
            (Some(ptu), None) => Some(Deployment::ptu(name, self.ptu(ptu))),
            (None, Some(standard)) => Some(Deployment::standard(name, self.quota(standard))),
            _ => {
                let problem = "needs either `ptu = { tokens_per_second = 5000 }` or \
                               `standard = { tokens_per_minute = 60000 }`";
                self.wrong(&text.name, problem);
                None
            }
        }
    }

    fn ptu(&mut self, text: &Spanned<PtuText>) -> Ptu {
        let capacity = text.get_ref();
        if !(1e-3..=1e8).contains(&capacity.tokens_per_second) {
            self.wrong(text, "tokens_per_second must lie between 0.001 and 100,000,000");
        }
        let mut ptu = Ptu::new(capacity.tokens_per_second);
        if let Some(bucket) = &capacity.bucket {
            ptu = ptu.bucket_seconds(bucket.get_ref().0.as_secs_f64());
        }
        if let Some(weight) = capacity.output_weight {
            if !(0.0..=1_000.0).contains(&weight) {
                self.wrong(text, "output_weight must lie between 0 and 1,000");
            }
            ptu = ptu.output_weight(weight);
        }
        match (capacity.largest_request, capacity.too_large_for) {
            (None, None) => {}
            (Some(tokens), Some(hint)) => ptu = ptu.refuses_above(tokens, hint.0),
            _ => {
                self.wrong(text, "largest_request and too_large_for need each other: add the other")
            }
        }
        ptu
    }

    pub(super) fn quota(&mut self, text: &Spanned<StandardText>) -> Standard {
        let limits = text.get_ref();
        let mut quota = match limits.tokens_per_minute {
            Some(tokens) => Standard::tokens_per_minute(tokens),
            None => Standard::unlimited(),
        };
        if let Some(requests) = limits.requests_per_minute {
            quota = quota.requests_per_minute(requests);
        }
        if let Some(hint) = limits.too_large_for {
            if limits.tokens_per_minute.is_none() {
                self.wrong(
                    text,
                    "too_large_for is for what is left of tokens: add tokens_per_minute",
                );
            }
            quota = quota.refuses_by_size(hint.0);
        }
        quota
    }
}
