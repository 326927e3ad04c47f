//! Files that a command is told to read, whatever stands at their path: every reading ends.

use std::{
    fs::{File, FileType, OpenOptions},
    io::{self, Read},
    path::Path,
    thread,
    time::Duration,
};

/// What the file at `path` contains, which is at most `largest` bytes.
///
/// A pipe, or a terminal, is read until its writer closes it, for as long as `patience`; nothing is
/// waited for in any other file.
///
/// # Errors
///
/// When it cannot be read to its end, or is no file.
pub(crate) fn read(path: &Path, largest: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    let mut bytes = Vec::new();
    // One more shows that there is more.
    let mut file = file.take(largest.saturating_add(1));
    let mut left = patience;
    while !read_on(&mut file, kind, &mut bytes)? {
        if left.is_zero() {
            return Err(io::Error::other(match patience.is_zero() {
                true => "it is a pipe or a terminal, and not a file".to_owned(),
                false => format!("it did not end within {} s", patience.as_secs()),
            }));
        }
        thread::sleep(PAUSE);
        left = left.saturating_sub(PAUSE);
    }
    if bytes.len() as u64 > largest {
        return Err(io::Error::other(format!("it is larger than {} MiB", largest >> 20)));
    }
    Ok(bytes)
}

/// As [`read`], of a text.
///
/// # Errors
///
/// When it is none, too.
pub(crate) fn read_text(path: &Path, largest: u64, patience: Duration) -> io::Result<String> {
    let bytes = read(path, largest, patience)?;
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text in UTF-8"))
}

/// Without waiting for somebody who writes to a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let mut opened = options.open(path);
    for _ in 0..DESCRIPTOR_RETRIES {
        // None are left: others have to be closed first, and that says nothing about the file.
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

/// Reads what there is, and says whether that was the end.
fn read_on(file: &mut impl Read, kind: FileType, bytes: &mut Vec<u8>) -> io::Result<bool> {
    match file.read_to_end(bytes) {
        // Nobody has begun to write.
        Ok(_) if bytes.is_empty() && is_pipe(kind) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn is_pipe(kind: FileType) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&kind)
}

#[cfg(not(unix))]
const fn is_pipe(_: FileType) -> bool {
    false
}

/// For whoever writes to a pipe that a command is started with.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// More than any configuration, key, or list of targets.
pub(crate) const LARGEST: u64 = 1 << 20;
const DESCRIPTOR_RETRIES: u32 = 50;
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(10);
