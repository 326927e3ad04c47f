//! Reloads the configuration when it changes, or on SIGHUP.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::ModifyKind};
use tokio::sync::mpsc;

use super::{
    Config, Problems,
    file::{self, Reading, variable},
    parse_context::Contents,
};
use crate::files::PATIENCE;

/// Loads the configuration at `path`, and prepares to watch it for changes.
///
/// # Errors
///
/// As in [`load`](file::load).
pub fn open(path: &Path) -> Result<(Config, Watch), Problems> {
    let Reading { result, contents } = file::read(path, &variable, PATIENCE);
    Ok((result?, Watch { path: path.to_owned(), seen: contents }))
}

/// A configuration file, and the last contents of it and of the files it refers to.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    seen: Contents,
}

impl Watch {
    /// Passes the configuration to `apply` whenever it, or a secret or certificate that it refers
    /// to, has changed, and immediately on every SIGHUP. Runs until dropped.
    ///
    /// `apply` receives the result of [`load`](file::load): if there are problems, the old
    /// configuration should stay. A file that is written in several steps is read after the last
    /// one; files that are replaced, by an editor's rename or by Kubernetes' swap of a symbolic
    /// link, are followed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is the way to end the watch.
    pub async fn run(
        self,
        mut hangup: Hangup,
        mut apply: impl FnMut(Result<Config, Problems>) + Send,
    ) {
        let Self { path, mut seen } = self;
        let (sender, mut changes) = mpsc::channel(1);
        let mut is_watched = true;
        loop {
            let watcher = watcher(&seen, &sender, is_watched);
            is_watched = watcher.is_some();
            // The watcher does not report changes from before its start.
            let reading = read(&path).await;
            if reading.contents != seen {
                apply(reading.result);
                seen = reading.contents;
                continue;
            }
            let is_asked_for = tokio::select! {
                () = hangup.received() => true,
                () = settled(&mut changes) => false,
                () = moment(), if !is_watched => false,
            };
            let Reading { result, contents } = read(&path).await;
            if is_asked_for || contents != seen {
                apply(result);
            }
            seen = contents;
            drop(watcher);
        }
    }
}

async fn read(path: &Path) -> Reading {
    let path = path.to_owned();
    // A pipe in place of a file would delay the next change.
    let patience = Duration::ZERO;
    tokio::task::spawn_blocking(move || file::read(&path, &variable, patience))
        .await
        .expect("reading a configuration does not panic")
}

/// Waits for a change, and then until nothing has changed for a moment; but not forever, because
/// the folder may contain files that change constantly, such as logs.
#[expect(clippy::disallowed_methods, reason = "the one place that waits for files")]
async fn settled(changes: &mut mpsc::Receiver<()>) {
    let _ = changes.recv().await;
    let quiet = async {
        while let Ok(Some(())) = tokio::time::timeout(SETTLE_TIME, changes.recv()).await {}
    };
    let _ = tokio::time::timeout(MAX_SETTLE_TIME, quiet).await;
}

/// The pause before the next attempt to watch.
#[expect(clippy::disallowed_methods, reason = "files are waited for here")]
async fn moment() {
    tokio::time::sleep(MAX_SETTLE_TIME).await;
}

/// Watches everything whose change can affect the files in `contents`. If there is no watcher, for
/// example because the system's limit is reached, the files are read periodically; that is logged
/// once.
fn watcher(
    contents: &Contents,
    changes: &mpsc::Sender<()>,
    is_watched: bool,
) -> Option<RecommendedWatcher> {
    let changes = changes.clone();
    let names = names(contents);
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_of_others(&event, &names)) {
            return;
        }
        // A full channel already contains a change.
        let _ = changes.try_send(());
    });
    let mut watcher = watcher
        .inspect_err(|error| {
            if is_watched {
                tracing::warn!(%error, "the configuration is not watched");
            }
        })
        .ok()?;
    for place in contents.keys().flat_map(|file| places(file)).collect::<BTreeSet<_>>() {
        if let Err(error) = watcher.watch(&place, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, place = %place.display(), "not watched");
        }
    }
    Some(watcher)
}

/// The names of the files in `contents`, and of what they link to.
fn names(contents: &Contents) -> BTreeSet<OsString> {
    let targets = contents.keys().filter_map(|file| file.canonicalize().ok());
    let files = contents.keys().cloned().chain(targets);
    files.filter_map(|file| Some(file.file_name()?.to_owned())).collect()
}

/// Whether an event cannot be a change of the files with these names: it is a read, of which every
/// change causes one, or a write to another file, such as a log that grows in the same folder.
fn is_of_others(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let is_named = |path: &PathBuf| path.file_name().is_none_or(|name| names.contains(name));
    match event.kind {
        EventKind::Access(_) => true,
        EventKind::Modify(ModifyKind::Data(_)) => !event.paths.iter().any(is_named),
        _ => false,
    }
}

/// Where to watch for changes of a file: its folder, in which it is replaced, the folder of the
/// file that it links to, and the file itself, which may be a mount.
fn places(file: &Path) -> impl Iterator<Item = PathBuf> {
    let target = file.canonicalize().ok();
    let folders = [Some(file), target.as_deref()];
    let folders = folders.into_iter().flatten().filter_map(folder).collect::<Vec<_>>();
    folders.into_iter().chain(target)
}

/// The nearest ancestor folder that exists.
fn folder(file: &Path) -> Option<PathBuf> {
    let here = |folder: &Path| match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_owned(),
    };
    file.ancestors().skip(1).map(here).find(|folder| folder.is_dir())
}

/// SIGHUP, on systems that have it. It is received from here on; signals that arrive before the
/// wait count as one.
#[derive(Debug)]
pub struct Hangup(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

impl Hangup {
    #[cfg(unix)]
    pub fn new() -> Self {
        let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
        Self(signal.inspect_err(|error| tracing::warn!(%error, "cannot receive SIGHUP")).ok())
    }

    #[cfg(not(unix))]
    pub const fn new() -> Self {
        Self()
    }

    async fn received(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.0
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Editors and Kubernetes replace a file in a few steps.
const SETTLE_TIME: Duration = Duration::from_millis(200);
/// Longer than those steps, and short enough for an operator who waits for the change.
const MAX_SETTLE_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, CreateKind, DataChange, RenameMode};

    use super::*;

    #[test]
    fn a_log_that_grows_beside_the_configuration_is_no_change() {
        let names = BTreeSet::from(["spillover.toml".into()]);
        let is_of_others = |kind, file: &str| {
            is_of_others(&Event::new(kind).add_path(Path::new("./").join(file)), &names)
        };
        let written = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(is_of_others(written, "gateway.log"));
        assert!(!is_of_others(written, "spillover.toml"));
        assert!(is_of_others(EventKind::Access(AccessKind::Any), "spillover.toml"));
        // A folder may be swapped by a link of any name.
        for kind in [
            EventKind::Create(CreateKind::Any),
            EventKind::Modify(ModifyKind::Name(RenameMode::Any)),
        ] {
            assert!(!is_of_others(kind, "..data"), "{kind:?}");
        }
    }
}
