//! Processes that start and end during a run.

use std::time::Duration;

/// How long a process lives, and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// How long it serves. With several processes, they end one after the other.
    pub lasts: Duration,
    /// From its end until its successor starts, which knows nothing of earlier answers. Meanwhile
    /// its requests go to the next live process.
    pub pause: Duration,
    /// How it ends.
    pub ending: Ending,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It accepts no more requests and finishes those it has.
    Stops,
    /// Queued requests are dropped, and the ends of requests in flight are not observed.
    Crashes,
}

/// One of the successive processes in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) place: usize,
    pub(super) number: u32,
}

impl Lives {
    /// The process that takes a request at `now` that was assigned to `place`.
    pub(super) fn at(&self, now: Duration, place: usize, places: usize) -> Life {
        let life = |place: usize| (self.age(now, place, places), place);
        let candidates = (0..places).map(|step| life((place + step) % places));
        let living = candidates.clone().find(|((_, age), _)| *age < self.lasts);
        // If no process is alive, use the successor in this place early.
        let ((number, _), place) = living.unwrap_or_else(|| life(place));
        Life { place, number }
    }

    /// When the processes of a place end, up to `until`.
    pub(super) fn ends(
        &self,
        place: usize,
        places: usize,
        until: Duration,
    ) -> impl Iterator<Item = (u32, Duration)> {
        let (cycle, lasts, offset) = (self.cycle(), self.lasts, self.offset(place, places));
        (0..)
            .map(move |number| (number, (cycle * number + lasts).checked_sub(offset)))
            .take_while(move |(_, end)| end.is_none_or(|end| end <= until))
            .filter_map(|(number, end)| Some((number, end?)))
    }

    /// The number of the process in this place, and its age.
    fn age(&self, now: Duration, place: usize, places: usize) -> (u32, Duration) {
        let since = now + self.offset(place, places);
        let number = (since.as_nanos() / self.cycle().as_nanos()) as u32;
        (number, since - self.cycle() * number)
    }

    fn cycle(&self) -> Duration {
        (self.lasts + self.pause).max(Duration::from_millis(1))
    }

    /// The age of the first process in a place when the run begins.
    fn offset(&self, place: usize, places: usize) -> Duration {
        self.cycle().mul_f64(place as f64 / places as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn processes_end_one_after_the_other_and_the_next_one_takes_over() {
        let lives = Lives { lasts: s(80), pause: s(20), ending: Ending::Stops };
        let at = |now, place| {
            let Life { place, number } = lives.at(s(now), place, 2);
            (place, number)
        };
        assert_eq!((at(0, 0), at(0, 1)), ((0, 0), (1, 0)));
        assert_eq!(at(35, 1), (0, 0), "the second is gone after 30 s");
        assert_eq!((at(50, 1), at(85, 0)), ((1, 1), (1, 1)));
        assert_eq!(at(100, 0), (0, 1));
        let ends = |place| lives.ends(place, 2, s(200)).collect::<Vec<_>>();
        assert_eq!(ends(0), [(0, s(80)), (1, s(180))]);
        assert_eq!(ends(1), [(0, s(30)), (1, s(130))]);
    }

    #[test]
    fn a_lone_process_is_followed_at_once() {
        let lives = Lives { lasts: s(60), pause: s(30), ending: Ending::Crashes };
        assert_eq!(lives.at(s(70), 0, 1), Life { place: 0, number: 0 });
        assert_eq!(lives.at(s(90), 0, 1), Life { place: 0, number: 1 });
    }
}
