//! `spillover serve`: the gateway's server, from its sockets to the layers.
//!
//! The rooms import one another one way: `lifecycle` builds, starts, reloads and stops; `inbound`
//! takes a request from its socket to the head of its answer; `routing` finds its model; `upstream`
//! sends it to that model's backends; `record`, filled by `inbound`, is reported at the end of it.
//! The files beside them (clock, timeout, counts, threads, the gateway's own refusals) import no
//! room, and `config` and `telemetry` import nothing of `serve`.

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

pub(crate) use self::lifecycle::run::run;
