//! Log lines on their way to standard error, written many at once by a thread of their own.

use std::{
    fmt,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Takes lines without a system call for each; clones take them for the same thread.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Vec<u8>>,
    has_lines: Condvar,
    /// What is being written, empty between two batches. The holder of the lock writes.
    turn: Mutex<Vec<u8>>,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::default(),
            has_lines: Condvar::new(),
            turn: Mutex::default(),
        }))
    }

    /// Starts the thread that writes.
    ///
    /// # Errors
    ///
    /// When the system has no thread to give.
    pub(crate) fn start(&self) -> io::Result<()> {
        let lines = self.clone();
        let thread = thread::Builder::new().name("log".to_owned());
        thread.spawn(move || lines.write_forever()).map(drop)
    }

    /// Writes what waits, and returns when it is written.
    pub(crate) fn drain(&self) {
        let mut batch = locked(&self.0.turn);
        mem::swap(&mut *batch, &mut *locked(&self.0.waiting));
        // When standard error is gone, there is no other place to report it.
        let _ = io::stderr().lock().write_all(&batch);
        batch.clear();
    }

    fn write_forever(&self) {
        loop {
            let waiting = locked(&self.0.waiting);
            let has_lines = self.0.has_lines.wait_while(waiting, |waiting| waiting.is_empty());
            drop(has_lines);
            // More lines come in the meantime, and need no wake-up.
            thread::sleep(PAUSE);
            self.drain();
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = locked(&self.0.waiting);
        let is_first = waiting.is_empty();
        waiting.extend_from_slice(line);
        let is_full = waiting.len() > MOST_WAITING;
        drop(waiting);
        if is_first {
            self.0.has_lines.notify_one();
        }
        // The reader of standard error is slow: slow down what logs.
        if is_full {
            self.drain();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(&locked(&self.0.waiting).len()).finish()
    }
}

fn locked(buffer: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How late a line may be.
const PAUSE: Duration = Duration::from_millis(5);
const MOST_WAITING: usize = 256 * 1024;
