//! The only module of the load tester that reads clocks or sleeps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the one clock read")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the one look at the wall clock")]
pub(super) fn wall() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "the one sleep")]
pub(super) async fn sleep_until(instant: Instant) {
    tokio::time::sleep_until(instant).await;
}

/// The result of a future, if it completes within `time`.
pub(super) async fn within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    let end = now().checked_add(time)?;
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep_until(end) => None,
    }
}

/// `HH:mm:ss.fff` in UTC, the reference's format.
pub(super) fn spelled(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let second = since.as_secs() % 86_400;
    let (hour, minute, millis) = (second / 3_600, second / 60 % 60, since.subsec_millis());
    format!("{hour:02}:{minute:02}:{:02}.{millis:03}", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_is_spelled_as_the_reference_does() {
        let at = UNIX_EPOCH + Duration::from_millis(86_400_000 * 3 + 61_003_263);
        assert_eq!(spelled(at), "16:56:43.263");
    }
}
