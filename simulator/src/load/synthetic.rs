//! Loads from a generator: Poisson arrivals, bursts, lognormal sizes.

use std::{f64::consts::PI, ops::Range, time::Duration};

use rand::{RngExt, rngs::SmallRng};

use super::{Load, OUTPUT_WEIGHT, Shape, Size, Traffic};
use crate::draws;
use tower_spillover::ConfigError;

pub(super) fn draw(
    load: &Load,
    seed: u64,
    warm_up: Duration,
    length: Option<Duration>,
    shape: &Shape,
) -> Result<Traffic, ConfigError> {
    let rate = rate(load);
    if !(1e-3..=1e4).contains(&rate) {
        let problem = format!("{rate} requests a second: use a number from 0.001 to 10000");
        return Err(ConfigError::new("rate", problem));
    }
    let to = warm_up.saturating_add(length.unwrap_or(DEFAULT_LENGTH));
    if to.as_secs_f64() * rate > MAX_REQUESTS {
        let problem = format!("{rate} a second for {} s are more than fit in memory", to.as_secs());
        return Err(ConfigError::new("rate", problem));
    }
    // Sizes have their own generator, so that they are the same at every rate.
    let mut sizes = draws::generator(seed, SIZES);
    let mut tails = draws::generator(seed, TAILS);
    let mut arrivals = Arrivals::new(load, draws::generator(seed, ARRIVALS));
    let mut asks = Vec::new();
    loop {
        let at = recorded(load, Duration::from_millis((arrivals.next() * 1e3).ceil() as u64));
        if at >= to {
            break;
        }
        let prompt = lognormal(&mut sizes, &shape.sizes.prompt);
        let mut output = lognormal(&mut sizes, &shape.sizes.output);
        if let Some((share, times)) = shape.sizes.tail
            && tails.random::<f64>() < share
        {
            output = ((output as f64 * times) as u64).clamp(1, super::MAX_TOKENS_PER_REQUEST);
        }
        asks.push(shape.ask(seed, asks.len(), at, (prompt, output, None)));
    }
    let input = shape.sizes.prompt.mean() * (1.0 - shape.hits * shape.cached);
    let mean_load = rate * (input + OUTPUT_WEIGHT * shape.sizes.mean_output());
    Ok(Traffic { asks, from: warm_up, to, mean_load, bursts: arrivals.bursts })
}

/// When an arrival `at` is recorded.
fn recorded(load: &Load, at: Duration) -> Duration {
    match load {
        Load::Wandering { tick, .. } if !tick.is_zero() => {
            let ticks = at.as_nanos().div_ceil(tick.as_nanos());
            tick.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
        }
        _ => at,
    }
}

/// Mean requests per second.
fn rate(load: &Load) -> f64 {
    match load {
        Load::Poisson { rate } | Load::Bursty { rate } | Load::OnOff { rate } => *rate,
        Load::Day { rate, .. } | Load::FlashCrowd { rate, .. } => *rate,
        Load::Wandering { rate, .. } => *rate,
        Load::Volleys { requests, every } => f64::from(*requests) / every.as_secs_f64(),
        Load::Trace(_) => unreachable!("a trace has arrivals of its own"),
    }
}

/// Requests per second at a given time of a load whose rate changes.
fn rate_at(load: &Load, seconds: f64) -> f64 {
    match load {
        Load::Day { rate, period } => {
            // Start at the mean, rising.
            let turn = seconds / period.as_secs_f64();
            rate * (1.0 + DAY_AMPLITUDE * (2.0 * PI * turn).sin())
        }
        Load::FlashCrowd { rate, times, at, lasts } => {
            let since = seconds - at.as_secs_f64();
            let is_on = (0.0..lasts.as_secs_f64()).contains(&since);
            rate * if is_on { *times } else { 1.0 }
        }
        _ => rate(load),
    }
}

/// Arrival times in seconds.
struct Arrivals {
    rate: f64,
    draw: SmallRng,
    now: f64,
    phase: Option<Phase>,
    /// The factors on the rate, outside and inside bursts.
    rates: [f64; 2],
    /// For a load whose rate changes over time: the load, and its highest rate.
    changing: Option<(Load, f64)>,
    /// Requests per volley, the interval in seconds, and the number of requests already drawn of
    /// this volley.
    volley: Option<(u32, f64, u32)>,
    /// The rate of a load that wanders.
    wander: Option<Wander>,
    bursts: Vec<Range<Duration>>,
}

/// A rate whose logarithm is a first-order autoregression.
struct Wander {
    sigma: f64,
    /// The rate's logarithm, in standard deviations from its mean.
    deviation: f64,
    /// Until when it applies, in seconds.
    until: f64,
}

impl Wander {
    /// The factor on the mean rate; its mean is 1.
    fn factor(&self) -> f64 {
        (self.sigma * (self.deviation - self.sigma / 2.0)).exp()
    }

    fn step(&mut self, draw: &mut SmallRng) {
        let kept = (-WANDER_STEP_S / WANDER_MEMORY_S).exp();
        self.deviation = kept * self.deviation + (1.0 - kept * kept).sqrt() * normal(draw);
        self.until += WANDER_STEP_S;
    }
}

/// A period of constant rate.
struct Phase {
    on: bool,
    since: f64,
    until: f64,
}

impl Arrivals {
    fn new(load: &Load, mut draw: SmallRng) -> Self {
        let phase = matches!(load, Load::Bursty { .. } | Load::OnOff { .. }).then(|| {
            let on = draw.random::<f64>() < ON_SECONDS / (ON_SECONDS + OFF_SECONDS);
            Phase::starting(on, 0.0, &mut draw)
        });
        let changing = match load {
            Load::Day { rate, .. } => Some(rate * (1.0 + DAY_AMPLITUDE)),
            Load::FlashCrowd { rate, times, .. } => Some(rate * times.max(1.0)),
            _ => None,
        };
        let changing = changing.map(|highest| (load.clone(), highest));
        let volley = match load {
            Load::Volleys { requests, every } => Some((*requests, every.as_secs_f64(), 0)),
            _ => None,
        };
        let wander = match load {
            Load::Wandering { sigma, .. } => {
                Some(Wander { sigma: *sigma, deviation: normal(&mut draw), until: WANDER_STEP_S })
            }
            _ => None,
        };
        let rates = match load {
            Load::OnOff { .. } => [0.0, (ON_SECONDS + OFF_SECONDS) / ON_SECONDS],
            _ => [OFF_RATE, ON_RATE],
        };
        Self {
            rates,
            rate: rate(load),
            draw,
            now: 0.0,
            phase,
            changing,
            volley,
            wander,
            bursts: Vec::new(),
        }
    }

    fn next(&mut self) -> f64 {
        if let Some((requests, every, done)) = &mut self.volley {
            if *done == *requests {
                (self.now, *done) = (self.now + *every, 0);
            }
            *done += 1;
            return self.now;
        }
        if let Some((load, highest)) = &self.changing {
            // Thinning: draw at the highest rate, and keep each arrival with the probability rate /
            // highest.
            loop {
                self.now += exponential(1.0 / highest, &mut self.draw);
                if self.draw.random::<f64>() * highest < rate_at(load, self.now) {
                    return self.now;
                }
            }
        }
        if let Some(wander) = &mut self.wander {
            loop {
                let mean_gap = 1.0 / (self.rate * wander.factor());
                let next = self.now + exponential(mean_gap, &mut self.draw);
                if next <= wander.until {
                    self.now = next;
                    return next;
                }
                self.now = wander.until;
                wander.step(&mut self.draw);
            }
        }
        let Some(phase) = &mut self.phase else {
            self.now += exponential(1.0 / self.rate, &mut self.draw);
            return self.now;
        };
        loop {
            let [off, on] = self.rates;
            let rate = self.rate * if phase.on { on } else { off };
            let next = self.now + exponential(1.0 / rate, &mut self.draw);
            if next <= phase.until {
                self.now = next;
                return next;
            }
            // The exponential is memoryless, so redraw the rest of the gap at the new rate.
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

fn lognormal(draw: &mut SmallRng, size: &Size) -> u64 {
    ((size.median * (size.sigma * normal(draw)).exp()).round() as u64)
        .clamp(1, super::MAX_TOKENS_PER_REQUEST)
}

fn normal(draw: &mut SmallRng) -> f64 {
    // Box and Muller. Discards the second value: storing it would cost more.
    let (u, v) = (1.0 - draw.random::<f64>(), draw.random::<f64>());
    (-2.0 * u.ln()).sqrt() * (2.0 * PI * v).cos()
}

fn exponential(mean: f64, draw: &mut SmallRng) -> f64 {
    -mean * (1.0 - draw.random::<f64>()).ln()
}

/// The default length of a load that has no end.
const DEFAULT_LENGTH: Duration = Duration::from_secs(20 * 60);
const MAX_REQUESTS: f64 = 2e7;
const ON_SECONDS: f64 = 15.0;
const OFF_SECONDS: f64 = 45.0;
const ON_RATE: f64 = 2.2;
const OFF_RATE: f64 = 0.6;
/// The amplitude of the `Day` load, as a share of its mean rate.
const DAY_AMPLITUDE: f64 = 0.9;
/// How often the rate of a load that wanders changes, and in what time it forgets its value.
const WANDER_STEP_S: f64 = 5.0;
const WANDER_MEMORY_S: f64 = 60.0;
const ARRIVALS: u64 = 1;
const SIZES: u64 = 2;
const TAILS: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Ask;

    fn draw_all(
        rate: f64,
        bursty: bool,
        seed: u64,
        length: Duration,
    ) -> Result<Traffic, ConfigError> {
        let load = if bursty { Load::Bursty { rate } } else { Load::Poisson { rate } };
        draw(&load, seed, Duration::ZERO, Some(length), &Shape::default())
    }

    fn hour(bursty: bool, seed: u64) -> Traffic {
        let hours = Duration::from_secs(10 * 3_600);
        draw_all(40.0, bursty, seed, hours).expect("a good rate")
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
            assert!(draw_all(rate, true, 1, DEFAULT_LENGTH).is_err(), "{rate}");
        }
        assert!(draw_all(1e4, false, 1, Duration::MAX).is_err());
    }
}
