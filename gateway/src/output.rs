//! A command's output outside of the log, which may have no reader.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// Makes a write beyond the file size limit (RLIMIT_FSIZE) fail like one to a full disk: without
/// a handler, SIGXFSZ ends the process.
pub(crate) fn survive_limits() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
}

/// Writes a line to standard output.
pub(crate) fn announce(line: &str) {
    write(line, |line| {
        let mut out = io::stdout().lock();
        out.write_all(line).and_then(|()| out.flush())
    });
}

/// Writes a complete text to standard output.
///
/// # Errors
///
/// If it cannot be written; a reader that has gone is not an error.
pub(crate) fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes the reason for the command's failure to standard error.
pub(crate) fn report(problem: &str) {
    write(problem, |line| io::stderr().write_all(line));
}

/// Reports that the command's output cannot be written.
pub(crate) fn report_unwritten(error: &io::Error) -> ExitCode {
    report(&format!("cannot write: {error}"));
    ExitCode::FAILURE
}

/// Writes on a separate thread, with a timeout. The command continues, or ends, even if there is
/// no reader, or the disk is full.
fn write(line: &str, write: impl FnOnce(&[u8]) -> io::Result<()> + Send + 'static) {
    let line = format!("{line}\n");
    let (done, is_done) = mpsc::channel();
    let thread = thread::Builder::new().name("output".to_owned());
    let writing = thread.spawn(move || {
        let _ = write(line.as_bytes());
        let _ = done.send(());
    });
    if writing.is_ok() {
        let _ = is_done.recv_timeout(OUTPUT_TIMEOUT);
    }
}

const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);
