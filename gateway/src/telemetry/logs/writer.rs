//! Writes log lines to standard error, many at once on a separate thread.

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    mem,
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// Queues lines without a system call each; clones share the queue and its thread.
///
/// Loggers never wait for the reader of standard error. Lines beyond a limit are dropped and
/// counted, and a separate line reports the number when writing continues.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    has_lines: Condvar,
    is_written: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// Whether the thread is writing its last batch.
    is_writing: bool,
    /// Lines dropped since the last report.
    untold: u64,
}

/// Receives the text of one event.
pub(crate) struct Line<'a> {
    lines: &'a Lines,
    /// A report of dropped lines, for which there is always room.
    is_told_always: bool,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::default(),
            has_lines: Condvar::new(),
            is_written: Condvar::new(),
            dropped: Counter::default(),
        }))
    }

    /// Starts the writing thread.
    ///
    /// # Errors
    ///
    /// If the system has no more threads or descriptors.
    pub(crate) fn start(&self) -> io::Result<()> {
        let lines = self.clone();
        // The standard library reports lines as written if standard error is closed.
        let log = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || lines.write_forever(&log)).map(drop)
    }

    /// The number of dropped lines.
    pub(crate) fn dropped(&self) -> Counter {
        self.0.dropped.clone()
    }

    /// Returns when everything is written, or after a timeout if the reader is slow.
    pub(crate) fn flush(&self) {
        let is_pending = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        let waiting = self.waiting();
        drop(self.0.is_written.wait_timeout_while(waiting, FLUSH_TIMEOUT, is_pending));
    }

    fn write_forever(&self, log: &File) {
        let mut batch = Vec::new();
        loop {
            let waiting = self.waiting();
            drop(self.0.has_lines.wait_while(waiting, |waiting| waiting.lines.is_empty()));
            // Later lines are collected meanwhile, and need no wake-up.
            thread::sleep(PAUSE);
            let mut waiting = self.waiting();
            mem::swap(&mut batch, &mut waiting.lines);
            waiting.is_writing = true;
            drop(waiting);
            let written = write_all(log, &batch);
            self.end_batch(&batch[written..]);
            batch.clear();
            // Releases memory after a slow reader caused a large batch.
            batch.shrink_to(KEPT_BUFFER_BYTES);
        }
    }

    /// Ends a batch whose `rest` could not be written, because standard error is closed, or is a
    /// file on a full disk.
    fn end_batch(&self, rest: &[u8]) {
        let mut waiting = self.waiting();
        let untold = if rest.is_empty() { mem::take(&mut waiting.untold) } else { 0 };
        self.drop_lines(&mut waiting, rest);
        drop(waiting);
        if untold > 0 {
            tracing::warn!(target: TARGET, lines = untold, "log lines were dropped");
        }
        self.waiting().is_writing = false;
        self.0.is_written.notify_all();
    }

    fn drop_lines(&self, waiting: &mut Waiting, lines: &[u8]) {
        let count = memchr::memchr_iter(b'\n', lines).count() as u64;
        waiting.untold += count;
        self.0.dropped.inc_by(count);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how many bytes were written.
fn write_all(mut log: &File, mut lines: &[u8]) -> usize {
    let whole = lines.len();
    while !lines.is_empty() {
        match log.write(lines) {
            Ok(0) => break,
            Ok(count) => lines = &lines[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process set the shared terminal or pipe to nonblocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    whole - lines.len()
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, is_told_always: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line { lines: self, is_told_always: metadata.target() == TARGET }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lines.waiting();
        if waiting.lines.len() + line.len() > MAX_WAITING_BYTES && !self.is_told_always {
            self.lines.drop_lines(&mut waiting, line);
            return Ok(line.len());
        }
        let is_first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if is_first {
            self.lines.0.has_lines.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(&self.waiting().lines.len()).finish()
    }
}

/// The maximum delay of a line.
const PAUSE: Duration = Duration::from_millis(5);
/// Maximum bytes waiting while others are written: 6,500 requests, a fifth of a second at full
/// load.
const MAX_WAITING_BYTES: usize = 4 << 20;
const KEPT_BUFFER_BYTES: usize = 256 << 10;
/// The maximum delay of an exit. An active reader takes milliseconds.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// For reports of dropped lines.
const TARGET: &str = "spillover::log";
