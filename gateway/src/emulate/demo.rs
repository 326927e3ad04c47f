//! The default resources, for the emulator and for the gateway's demonstration.

use std::{io, net::Ipv4Addr, path::Path};

use spillover_emulator::Serving;
use tokio::net::TcpListener;

use super::file::{self, Wanted};

/// A PTU and three regions.
pub(super) fn wanted() -> Wanted {
    file::parse(Path::new("demo.toml"), include_str!("demo.toml"))
        .unwrap_or_else(|problems| panic!("the built-in file is right: {problems:?}"))
}

/// Starts the same resources on free local ports, the PTU first.
///
/// # Errors
///
/// If there is no free port.
pub(crate) async fn start() -> io::Result<Vec<Serving>> {
    let (emulator, places) = wanted().emulator(None);
    let mut serving = Vec::with_capacity(places.len());
    for place in &places {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        serving.push(emulator.serve(&place.name, listener));
    }
    Ok(serving)
}
