//! `spillover serve`: the gateway's server, from its sockets to the layers.
//!
//! Its modules depend on one another in one direction: `lifecycle` builds, starts, reloads and
//! stops; `inbound` takes a request from its socket to the head of its answer; `routing` finds its
//! model; `upstream` sends it to that model's backends; `record`, filled by `inbound`, is reported
//! when the request ends. The files beside them (clock, timeout, counts, threads, the gateway's own
//! refusals) import none of these modules, and `config` and `telemetry` import nothing from
//! `serve`.

mod activity;
mod client_patience;
mod clock;
mod concurrency;
mod delivery;
mod idle_timeout;
mod inbound;
mod lifecycle;
mod peers;
mod record;
mod refusal;
mod routing;
mod upload;
mod upload_rest;
mod upstream;
mod workers;

#[cfg(test)]
mod tests;

pub(crate) use self::lifecycle::{build::try_to_build, run::run};
