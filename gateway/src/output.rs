//! What a command says outside of the log: a line that nobody may ever read.

use std::{
    io::{self, Write},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// Lets a write fail that would make a file larger than the process may make it (RLIMIT_FSIZE), as one
/// to a full disk does: without a handler, SIGXFSZ ends the process.
pub(crate) fn survive_limits() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
}

/// One line on standard output.
pub(crate) fn announce(line: &str) {
    write(line, |line| {
        let mut out = io::stdout().lock();
        out.write_all(line).and_then(|()| out.flush())
    });
}

/// A text on standard output, all of it.
///
/// # Errors
///
/// When it cannot be written; that its reader has gone is none.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Why the command ends, on standard error.
pub(crate) fn report(problem: &str) {
    write(problem, |line| io::stderr().write_all(line));
}

/// Writes in a thread of its own, and waits for that as long as a reader may take. A command goes on,
/// or ends, when there is no reader, and when the disk is full.
fn write(line: &str, write: impl FnOnce(&[u8]) -> io::Result<()> + Send + 'static) {
    let line = format!("{line}\n");
    let (done, is_done) = mpsc::channel();
    let thread = thread::Builder::new().name("output".to_owned());
    let writing = thread.spawn(move || {
        let _ = write(line.as_bytes());
        let _ = done.send(());
    });
    if writing.is_ok() {
        let _ = is_done.recv_timeout(LONGEST);
    }
}

const LONGEST: Duration = Duration::from_secs(1);
