//! Reads and validates faults: scripts, shares of the requests, poison and outages.

use spillover_emulator::{Fault, Outage};
use toml::Spanned;

use super::{Check, fault::FaultText, text::OutageText};

impl Check<'_> {
    pub(super) fn faults(&mut self, texts: &[Spanned<FaultText>]) -> Vec<Fault> {
        self.each(texts, FaultText::scripted).into_iter().flatten().collect()
    }

    pub(super) fn failures(&mut self, texts: &[Spanned<FaultText>]) -> Vec<(f64, Fault)> {
        let failures = self.each(texts, FaultText::drawn);
        let sum: f64 = failures.iter().map(|(share, _)| share).sum();
        if sum > 1.0
            && let Some(last) = texts.last()
        {
            self.wrong(last, "the shares add up to more than 1: lower one of them");
            return Vec::new();
        }
        failures
    }

    pub(super) fn poison(&mut self, texts: &[Spanned<FaultText>]) -> Vec<(String, Fault)> {
        self.each(texts, FaultText::marked)
    }

    pub(super) fn outage(&mut self, text: &Spanned<OutageText>) -> Option<Outage> {
        let OutageText { at, every, lasts, share } = *text.get_ref();
        match (at, every, lasts, share) {
            (Some(at), None, Some(lasts), None) => Some(Outage::at(at.0, lasts.0)),
            (None, Some(every), Some(lasts), None) if lasts.0 < every.0 => {
                Some(Outage::every(every.0, lasts.0))
            }
            (None, Some(_), Some(_), None) => {
                self.wrong(text, "lasts until the next one begins: shorten it");
                None
            }
            (None, None, None, Some(share)) if (0.0..=1.0).contains(&share) => {
                Some(Outage::share(share))
            }
            _ => {
                let problem = "is `{ at = \"5s\", lasts = \"300ms\" }`, or the same with `every`, or \
                               `{ share = 0.01 }` with a share from 0 to 1";
                self.wrong(text, problem);
                None
            }
        }
    }

    fn each<T>(
        &mut self,
        texts: &[Spanned<FaultText>],
        read: impl Fn(&FaultText) -> Result<T, String>,
    ) -> Vec<T> {
        let mut right = Vec::with_capacity(texts.len());
        for text in texts {
            match read(text.get_ref()) {
                Ok(fault) => right.push(fault),
                Err(problem) => self.wrong(text, &problem),
            }
        }
        right
    }
}
