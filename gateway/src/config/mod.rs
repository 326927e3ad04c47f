//! The configuration: `settings` defines it, the other files read and validate it.

mod check;
mod client;
mod client_key;
mod cors;
mod endpoint;
mod file;
mod first_token;
mod fleet;
mod idle;
mod model;
mod model_policy;
mod nearest;
mod operations;
mod other_format;
mod parse_context;
mod pem;
mod problem;
mod proxy;
mod quantity;
mod secret;
mod server;
mod settings;
mod tokens;
mod toml;
mod watch;

#[cfg(test)]
mod reference_page;
#[cfg(test)]
mod tests;

pub use self::{
    check::check,
    file::parse,
    problem::{Problem, Problems},
    settings::{
        AllowedOperation, Auth, Backend, Budget, CertificateName, Class, Client, ClientTls,
        Clients, Config, Cors, Entra, EntraKind, Failure, Failures, FirstToken, FleetSettings,
        GateSettings, HeadTimeout, Http2, Identities, Inspection, Issuer, Limits, Listen, Model,
        MoveBudget, Origins, Permissions, Secret, Share, Steering, Stickiness, StickySettings,
        TelemetrySettings, Tls, Tokens, Upstream,
    },
    watch::{Hangup, Watch, open},
};
