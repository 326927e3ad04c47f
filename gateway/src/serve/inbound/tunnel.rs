//! A realtime session: copies bytes both ways until one side ends it.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

use crate::{
    access_record::{Ended, SessionRecord},
    serve::{clock, record::request_guard::RequestGuard},
};

/// Carries an accepted session between a client and a backend. Dropping the future closes both
/// connections.
pub(super) async fn carry(
    client: OnUpgrade,
    backend: OnUpgrade,
    idle_timeout: Duration,
    guard: Box<RequestGuard>,
) {
    let mut session = Session { guard, passed: Passed::default(), end: "cut" };
    session.end = match tokio::try_join!(client, backend) {
        Ok((client, backend)) => pass(client, backend, idle_timeout, &session.passed).await,
        Err(_) => "broken",
    };
}

/// A session in progress, which is recorded however it ends.
struct Session {
    guard: Box<RequestGuard>,
    passed: Passed,
    end: &'static str,
}

/// The bytes copied in each direction.
#[derive(Default)]
struct Passed {
    from_client: AtomicU64,
    from_backend: AtomicU64,
}

impl Passed {
    fn total(&self) -> u64 {
        self.from_client.load(Relaxed) + self.from_backend.load(Relaxed)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.guard.record.session = Some(SessionRecord {
            from_client: self.passed.from_client.load(Relaxed),
            from_backend: self.passed.from_backend.load(Relaxed),
            end: self.end,
        });
        self.guard.record.ended = match self.end {
            "client" | "backend" => Ended::Complete,
            "idle" => Ended::Stalled,
            "broken" => Ended::Reset,
            _ => Ended::Cut,
        };
    }
}

/// Copies until one side ends; returns how it ended.
async fn pass(
    client: Upgraded,
    backend: Upgraded,
    idle: Duration,
    passed: &Passed,
) -> &'static str {
    let (from_client, to_client) = split(TokioIo::new(client));
    let (from_backend, to_backend) = split(TokioIo::new(backend));
    let mut up = Box::pin(pump(from_client, to_backend, idle, &passed.from_client));
    let mut down = Box::pin(pump(from_backend, to_client, idle, &passed.from_backend));
    let ended = |end: io::Result<()>, by| if end.is_ok() { by } else { "broken" };
    tokio::select! {
        end = &mut up => {
            // Forward the other side's reply, in particular its close frame.
            let _ = clock::timeout(CLOSE_TIME, down).await;
            ended(end, "client")
        }
        end = &mut down => {
            let _ = clock::timeout(CLOSE_TIME, up).await;
            ended(end, "backend")
        }
        () = silence(idle, passed) => "idle",
    }
}

/// Copies until the end of the stream, and then half closes the other side.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    idle: Duration,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut room = vec![0; BUFFER_BYTES];
    loop {
        let length = from.read(&mut room).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        let write = async {
            to.write_all(&room[..length]).await?;
            to.flush().await
        };
        // A side that accepts nothing blocks only its own direction, which `silence` may not
        // notice.
        clock::timeout(idle, write).await.map_err(|_| io::ErrorKind::TimedOut)??;
        passed.fetch_add(length as u64, Relaxed);
    }
}

/// Ready when nothing was copied for `longest`, plus or minus a quarter.
async fn silence(longest: Duration, passed: &Passed) {
    let (mut quiet, mut seen) = (0, passed.total());
    while quiet < LOOKS_PER_TIMEOUT {
        clock::sleep(longest / LOOKS_PER_TIMEOUT).await;
        let total = passed.total();
        quiet = if total == seen { quiet + 1 } else { 0 };
        seen = total;
    }
}

/// The time for the rest of a session after one side has ended it.
const CLOSE_TIME: Duration = Duration::from_secs(2);
/// Per direction. A second of the service's audio is 64 KiB, in several messages.
const BUFFER_BYTES: usize = 8 << 10;
const LOOKS_PER_TIMEOUT: u32 = 4;
