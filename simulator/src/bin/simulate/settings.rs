//! Parses the structured option values of the command line.

use std::{str::FromStr, time::Duration};

use spillover_simulator::{
    Ending, Hints, Lives, Load, MaxTokens, Neighbour, Outage, Simulation, WhenRefused,
};

/// `up-to:2`, `times:4`, `4000`, `none:4096`, or `mixed:0.5x16`.
pub(crate) fn max_tokens(text: &str) -> Result<MaxTokens, String> {
    match text.split_once(':') {
        None => Ok(MaxTokens::Constant(number(text)?)),
        Some(("up-to", most)) => Ok(MaxTokens::UpTo(number(most)?)),
        Some(("times", factor)) => Ok(MaxTokens::Times(number(factor)?)),
        Some(("none", assumed)) => Ok(MaxTokens::Unstated(number(assumed)?)),
        Some(("mixed", kinds)) => {
            let (share, times) = pair(kinds, 'x')?;
            Ok(MaxTokens::Mixed { share: share_of(share)?, times: number(times)? })
        }
        Some((kind, _)) => Err(format!("`{kind}` is none of up-to, times, none and mixed")),
    }
}

/// `exact`, `seconds`, `none`, a duration, or `false:SHARE`.
pub(crate) fn hints(text: &str) -> Result<Hints, String> {
    let seconds = Duration::from_secs;
    match text.split_once(':') {
        Some(("false", share)) => {
            Ok(Hints::False { share: share_of(share)?, from: seconds(5), to: seconds(17) })
        }
        Some((kind, _)) => Err(format!("`{kind}` is not `false`")),
        None => match text {
            "exact" => Ok(Hints::Exact),
            "seconds" => Ok(Hints::WholeSeconds),
            "none" => Ok(Hints::Missing),
            constant => Ok(Hints::Constant(time(constant)?)),
        },
    }
}

/// `PART:KIND`, with the kinds of [`hints`].
pub(crate) fn hints_of(text: &str) -> Result<(usize, Hints), String> {
    let (part, kind) = pair(text, ':')?;
    Ok((number(part)?, hints(kind)?))
}

/// `SHARE:TIME`.
pub(crate) fn stalls(text: &str) -> Result<(f64, Duration), String> {
    let (share, lasts) = pair(text, ':')?;
    Ok((share_of(share)?, time(lasts)?))
}

/// `SHARE`, then optionally `steady`, `hammers` and `AT+TIME`.
pub(crate) fn neighbour(text: &str) -> Result<Neighbour, String> {
    let mut words = text.split(',');
    let share = number(words.next().unwrap_or_default())?;
    let mut neighbour =
        Neighbour { share, is_bursty: true, when_refused: WhenRefused::Drops, stays: None };
    for word in words {
        match word {
            "steady" => neighbour.is_bursty = false,
            "hammers" => neighbour.when_refused = WhenRefused::Hammers,
            _ if word.contains('+') => neighbour.stays = Some(span(word)?),
            _ => return Err(format!("`{word}` is neither `steady` nor `hammers` nor a time")),
        }
    }
    Ok(neighbour)
}

/// `AT+TIME:KIND`, where KIND is `429`, `503` or `down`.
pub(crate) fn outage(text: &str) -> Result<(Duration, Duration, Outage), String> {
    let (times, kind) = pair(text, ':')?;
    let (at, lasts) = pair(times, '+')?;
    let outage = match kind {
        "429" => Outage::Silent,
        "503" => Outage::Unavailable,
        "down" => Outage::Down,
        _ => return Err(format!("`{kind}` is none of 429, 503 and down")),
    };
    Ok((time(at)?, time(lasts)?, outage))
}

/// `AT+TIME`.
pub(crate) fn span(text: &str) -> Result<(Duration, Duration), String> {
    let (at, lasts) = pair(text, '+')?;
    Ok((time(at)?, time(lasts)?))
}

/// `LASTS+PAUSE:ENDING`, where ENDING is `stops` or `crashes`.
pub(crate) fn lives(text: &str) -> Result<Lives, String> {
    let (times, ending) = pair(text, ':')?;
    let (lasts, pause) = pair(times, '+')?;
    let ending = match ending {
        "stops" => Ending::Stops,
        "crashes" => Ending::Crashes,
        _ => return Err(format!("`{ending}` is neither `stops` nor `crashes`")),
    };
    Ok(Lives { lasts: time(lasts)?, pause: time(pause)?, ending })
}

/// `AT:FACTOR`.
pub(crate) fn resize(text: &str) -> Result<(Duration, f64), String> {
    let (at, factor) = pair(text, ':')?;
    Ok((time(at)?, number(factor)?))
}

/// `N/TIME`.
pub(crate) fn volleys(text: &str) -> Result<Load, String> {
    let (requests, every) = pair(text, '/')?;
    Ok(Load::Volleys { requests: number(requests)?, every: time(every)? })
}

/// A duration with its unit: `4s`, `250ms`, `20m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a duration: write it like 4s, 250ms or 20m"))
}

/// Applies the remaining options to `simulation`.
pub(crate) fn apply(args: &crate::args::Args, mut simulation: Simulation) -> Simulation {
    if let Some(max_tokens) = args.max_tokens {
        simulation = simulation.max_tokens(max_tokens);
    }
    if let Some(hints) = args.hints {
        simulation = simulation.hints(hints);
    }
    if let Some((part, hints)) = args.hints_of {
        simulation = simulation.hints_of(part, hints);
    }
    if let Some((share, lasts)) = args.stalls {
        simulation = simulation.stalls(share, lasts);
    }
    if let Some(neighbour) = args.neighbour {
        simulation = simulation.neighbour(neighbour);
    }
    if let Some(lives) = args.lives {
        simulation = simulation.lives(lives);
    }
    if args.streamed {
        simulation = simulation.streamed();
    }
    if !args.parts.is_empty() {
        simulation = simulation.parts(args.parts.iter().copied());
    }
    for &(at, lasts, outage) in &args.outage {
        simulation = simulation.outage(at, lasts, outage);
    }
    for &(at, factor) in &args.resize {
        simulation = simulation.resize(at, factor);
    }
    simulation.cached(args.cached).round_trip(args.round_trip).refusal_time(args.refusal_time)
}

fn share_of(text: &str) -> Result<f64, String> {
    let share = number(text)?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share lies in 0 to 1".to_owned()) }
}

fn pair(text: &str, between: char) -> Result<(&str, &str), String> {
    text.split_once(between).ok_or_else(|| format!("`{text}` has no `{between}`"))
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number that fits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn settings_are_read_as_the_help_has_them() {
        assert_eq!(max_tokens("4000"), Ok(MaxTokens::Constant(4_000)));
        assert_eq!(max_tokens("up-to:1.5"), Ok(MaxTokens::UpTo(1.5)));
        assert_eq!(max_tokens("none:4096"), Ok(MaxTokens::Unstated(4_096)));
        assert_eq!(hints("43ms"), Ok(Hints::Constant(Duration::from_millis(43))));
        assert_eq!(hints("false:0.08"), Ok(Hints::False { share: 0.08, from: s(5), to: s(17) }));
        assert_eq!(max_tokens("mixed:0.5x16"), Ok(MaxTokens::Mixed { share: 0.5, times: 16.0 }));
        assert_eq!(hints_of("1:seconds"), Ok((1, Hints::WholeSeconds)));
        assert_eq!(stalls("0.01:2s"), Ok((0.01, s(2))));
        let brief = neighbour("1.2,5m+60s").unwrap();
        assert_eq!(brief.stays, Some((s(300), s(60))));
        let neighbour = neighbour("0.5,steady,hammers").unwrap();
        assert_eq!((neighbour.share, neighbour.is_bursty), (0.5, false));
        assert_eq!(neighbour.when_refused, WhenRefused::Hammers);
        assert_eq!(outage("300s+2m:503"), Ok((s(300), s(120), Outage::Unavailable)));
        let lives = lives("90s+30s:crashes").unwrap();
        assert_eq!((lives.lasts, lives.pause, lives.ending), (s(90), s(30), Ending::Crashes));
        assert_eq!(resize("5m:0.5"), Ok((s(300), 0.5)));
        let volleys = volleys("14/13s").unwrap();
        assert!(matches!(volleys, Load::Volleys { requests: 14, every } if every == s(13)));
    }

    #[test]
    fn what_is_wrong_with_a_setting_is_said() {
        for (error, words) in [
            (max_tokens("most:4").unwrap_err(), "none of up-to, times, none and mixed"),
            (hints("soon").unwrap_err(), "not a duration"),
            (resize("300:0.5").unwrap_err(), "`300` is not a duration"),
            (hints("false:8").unwrap_err(), "0 to 1"),
            (neighbour("0.5,loud").unwrap_err(), "`loud` is neither"),
            (outage("300s:503").unwrap_err(), "has no `+`"),
            (lives("90s+30s:sleeps").unwrap_err(), "`sleeps` is neither"),
        ] {
            assert!(error.contains(words), "{error}");
        }
    }
}
