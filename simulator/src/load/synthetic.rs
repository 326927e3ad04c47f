//! Loads from a generator: Poisson arrivals, bursts, lognormal sizes.

use std::{f64::consts::PI, ops::Range, time::Duration};

use rand::{RngExt, rngs::SmallRng};

use super::{Ask, OUTPUT_WEIGHT, Traffic, max_tokens};
use crate::draws;
use tower_spillover::ConfigError;

pub(super) fn draw(
    rate: f64,
    bursty: bool,
    seed: u64,
    warm_up: Duration,
    length: Option<Duration>,
) -> Result<Traffic, ConfigError> {
    if !(1e-3..=1e4).contains(&rate) {
        let problem = format!("{rate} requests a second: use a number from 0.001 to 10000");
        return Err(ConfigError::new("rate", problem));
    }
    let to = warm_up.saturating_add(length.unwrap_or(LENGTH));
    if to.as_secs_f64() * rate > MOST_REQUESTS {
        let problem = format!("{rate} a second for {} s are more than fit in memory", to.as_secs());
        return Err(ConfigError::new("rate", problem));
    }
    // Sizes have a generator of their own: they are the same at every rate.
    let mut sizes = draws::generator(seed, SIZES);
    let mut arrivals = Arrivals::new(rate, bursty, draws::generator(seed, ARRIVALS));
    let mut asks = Vec::new();
    loop {
        let at = Duration::from_millis((arrivals.next() * 1e3).ceil() as u64);
        if at >= to {
            break;
        }
        let prompt = lognormal(&mut sizes, &PROMPT);
        let output = lognormal(&mut sizes, &OUTPUT);
        let max_tokens = max_tokens(output, seed, asks.len());
        asks.push(Ask { at, prompt, output, max_tokens });
    }
    let mean_load = rate * (PROMPT.mean() + OUTPUT_WEIGHT * OUTPUT.mean());
    Ok(Traffic { asks, from: warm_up, to, mean_load, bursts: arrivals.bursts })
}

/// Arrival times in seconds.
struct Arrivals {
    rate: f64,
    draw: SmallRng,
    now: f64,
    phase: Option<Phase>,
    bursts: Vec<Range<Duration>>,
}

/// A stretch of one rate.
struct Phase {
    on: bool,
    since: f64,
    until: f64,
}

impl Arrivals {
    fn new(rate: f64, bursty: bool, mut draw: SmallRng) -> Self {
        let phase = bursty.then(|| {
            let on = draw.random::<f64>() < ON_SECONDS / (ON_SECONDS + OFF_SECONDS);
            Phase::starting(on, 0.0, &mut draw)
        });
        Self { rate, draw, now: 0.0, phase, bursts: Vec::new() }
    }

    fn next(&mut self) -> f64 {
        let Some(phase) = &mut self.phase else {
            self.now += exponential(1.0 / self.rate, &mut self.draw);
            return self.now;
        };
        loop {
            let rate = self.rate * if phase.on { ON_RATE } else { OFF_RATE };
            let next = self.now + exponential(1.0 / rate, &mut self.draw);
            if next <= phase.until {
                self.now = next;
                return next;
            }
            // The exponential forgets, so the rest of the gap is drawn anew at the other rate.
            self.now = phase.until;
            self.bursts.extend(phase.burst());
            *phase = Phase::starting(!phase.on, self.now, &mut self.draw);
        }
    }
}

impl Phase {
    fn starting(on: bool, now: f64, draw: &mut SmallRng) -> Self {
        let mean = if on { ON_SECONDS } else { OFF_SECONDS };
        Self { on, since: now, until: now + exponential(mean, draw) }
    }

    fn burst(&self) -> Option<Range<Duration>> {
        let at = Duration::from_secs_f64;
        self.on.then(|| at(self.since)..at(self.until))
    }
}

/// A size in tokens.
struct Size {
    median: f64,
    sigma: f64,
}

impl Size {
    fn mean(&self) -> f64 {
        self.median * (self.sigma * self.sigma / 2.0).exp()
    }
}

fn lognormal(draw: &mut SmallRng, size: &Size) -> u64 {
    // Box and Muller: the half that is thrown away costs less than keeping it.
    let (u, v) = (1.0 - draw.random::<f64>(), draw.random::<f64>());
    let normal = (-2.0 * u.ln()).sqrt() * (2.0 * PI * v).cos();
    ((size.median * (size.sigma * normal).exp()).round() as u64).clamp(1, super::MOST_TOKENS)
}

fn exponential(mean: f64, draw: &mut SmallRng) -> f64 {
    -mean * (1.0 - draw.random::<f64>()).ln()
}

/// What is simulated of a load without an end.
const LENGTH: Duration = Duration::from_secs(20 * 60);
const MOST_REQUESTS: f64 = 2e7;
const PROMPT: Size = Size { median: 800.0, sigma: 0.8 };
const OUTPUT: Size = Size { median: 200.0, sigma: 0.7 };
const ON_SECONDS: f64 = 15.0;
const OFF_SECONDS: f64 = 45.0;
const ON_RATE: f64 = 2.2;
const OFF_RATE: f64 = 0.6;
const ARRIVALS: u64 = 1;
const SIZES: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(bursty: bool, seed: u64) -> Traffic {
        let hours = Duration::from_secs(10 * 3_600);
        draw(40.0, bursty, seed, Duration::ZERO, Some(hours)).expect("a good rate")
    }

    #[test]
    fn rates_and_sizes_have_the_stated_means() {
        for bursty in [false, true] {
            let Traffic { asks, mean_load, .. } = hour(bursty, 1);
            let count = asks.len() as f64;
            assert!((count / 36_000.0 - 40.0).abs() < 1.5, "{count} in ten hours");
            let mean = |part: fn(&Ask) -> u64| asks.iter().map(part).sum::<u64>() as f64 / count;
            assert!((mean(|ask| ask.prompt) - 1_101.7).abs() < 5.0);
            assert!((mean(|ask| ask.output) - 255.5).abs() < 1.0);
            let over = mean(|ask| ask.max_tokens) / mean(|ask| ask.output);
            assert!((over - 1.5).abs() < 0.01, "max_tokens is {over} times the output");
            assert!((mean_load / 40.0 - 1_868.3).abs() < 0.5, "{mean_load}");
        }
    }

    #[test]
    fn bursts_make_the_seconds_of_a_load_differ_more() {
        let spread = |bursty| {
            let mut minutes = vec![0.0_f64; 3_600];
            for ask in hour(bursty, 2).asks {
                minutes[ask.at.as_secs() as usize / 10] += 1.0;
            }
            let mean = minutes.iter().sum::<f64>() / minutes.len() as f64;
            minutes.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / minutes.len() as f64 / mean
        };
        assert!((0.8..1.2).contains(&spread(false)), "Poisson counts vary by their mean");
        assert!(spread(true) > 50.0);
    }

    #[test]
    fn requests_come_faster_between_the_beginning_and_the_end_of_a_burst() {
        let Traffic { asks, bursts, to, .. } = hour(true, 3);
        let seconds = bursts.iter().map(|burst| (burst.end - burst.start).as_secs_f64());
        let seconds: f64 = seconds.sum();
        assert!((bursts.len() as f64 / 600.0 - 1.0).abs() < 0.15, "one a minute: {}", bursts.len());
        assert!((seconds / to.as_secs_f64() - 0.25).abs() < 0.03, "a quarter of the time");
        let within = asks.iter().filter(|ask| {
            let next = bursts.partition_point(|burst| burst.end <= ask.at);
            bursts.get(next).is_some_and(|burst| burst.contains(&ask.at))
        });
        assert!((within.count() as f64 / seconds / 88.0 - 1.0).abs() < 0.01, "2.2 times 40");
        assert!(hour(false, 3).bursts.is_empty());
    }

    #[test]
    fn a_seed_gives_the_same_load_and_another_seed_another() {
        let first = |seed| {
            let mut asks = hour(true, seed).asks;
            asks.truncate(100);
            asks
        };
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    #[test]
    fn a_rate_that_cannot_be_is_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(draw(rate, true, 1, Duration::ZERO, None).is_err(), "{rate}");
        }
        assert!(draw(1e4, false, 1, Duration::ZERO, Some(Duration::MAX)).is_err());
    }
}
