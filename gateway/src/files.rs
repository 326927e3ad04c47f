//! Reads files given on the command line; every read ends, whatever the path refers to.

use std::{
    fs::{File, FileType, OpenOptions},
    io::{self, Read},
    path::Path,
    thread,
    time::Duration,
};

/// The contents of the file at `path`, at most `largest` bytes.
///
/// # Errors
///
/// As in [`read_pieces`], and if it is larger.
pub(crate) fn read(path: &Path, largest: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_pieces(path, patience, |piece| {
        bytes.extend_from_slice(piece);
        match bytes.len() as u64 > largest {
            true => {
                let problem = format!("it is larger than {} MiB", largest >> 20);
                Err(io::Error::new(io::ErrorKind::FileTooLarge, problem))
            }
            false => Ok(()),
        }
    })?;
    Ok(bytes)
}

/// Passes the contents of the file at `path` to `take` in pieces, until that fails.
///
/// A pipe or a terminal is read until its writer closes it, for at most `patience`; other files are
/// never waited for.
///
/// # Errors
///
/// If it cannot be read to its end, or is not a file.
pub(crate) fn read_pieces<E: From<io::Error>>(
    path: &Path,
    patience: Duration,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut file = open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::other("it is a directory").into());
    }
    let (mut piece, mut left) = (vec![0; PIECE], patience);
    // A pipe without a writer so far looks as if it had ended.
    let mut may_end = !is_pipe(kind);
    loop {
        match file.read(&mut piece) {
            Ok(0) if may_end => return Ok(()),
            Ok(0) => {}
            Ok(count) => {
                take(&piece[..count])?;
                may_end = true;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if left.is_zero() {
            let problem = match patience.is_zero() {
                true => "it is a pipe or a terminal, and not a file".to_owned(),
                false => format!("it did not end within {} s", patience.as_secs()),
            };
            return Err(io::Error::other(problem).into());
        }
        thread::sleep(PAUSE);
        left = left.saturating_sub(PAUSE);
    }
}

/// As [`read`], for a text.
///
/// # Errors
///
/// Also if it is not text.
pub(crate) fn read_text(path: &Path, largest: u64, patience: Duration) -> io::Result<String> {
    let bytes = read(path, largest, patience)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text in UTF-8"))
}

/// Does not wait for the writer of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let mut opened = options.open(path);
    for _ in 0..DESCRIPTOR_RETRIES {
        // Out of descriptors: a temporary condition that is not about the file.
        let is_starved =
            |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENFILE | libc::EMFILE));
        if !opened.as_ref().is_err_and(is_starved) {
            break;
        }
        thread::sleep(DESCRIPTOR_PAUSE);
        opened = options.open(path);
    }
    opened
}

#[cfg(unix)]
fn is_pipe(kind: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
const fn is_pipe(_: FileType) -> bool {
    false
}

/// For the writer of a pipe that is passed to a command.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// More than any key, certificate or list of targets needs.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
/// More than any configuration needs: 10,000 clients take 1 MiB, 1,000 models with three backends
/// each less than that.
pub(crate) const MAX_CONFIG_BYTES: u64 = 16 << 20;
const PIECE: usize = 64 << 10;
const DESCRIPTOR_RETRIES: u32 = 50;
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(10);
