//! The layers over the emulator in virtual time: an hour of traffic in seconds.
//!
//! It answers what a setting buys before it is deployed: how much of a PTU is used, how much is
//! spilled, how long callers wait, and how often the service is asked for one success. The layers
//! are the real ones, the [emulator](spillover_emulator) plays the service, a network delays what
//! passes between them, and tokio's paused clock jumps from one event to the next. A run is the
//! same bit by bit for a seed, and every [`Policy`] meets the same requests. A [`World`] is a setting
//! with a name: what is unlike the usual load, such as hints that are false, and what is asked of the
//! gate in it.
//!
//! ```
//! use std::time::Duration;
//! use spillover_simulator::{Load, Policy, Simulation};
//!
//! # fn main() -> Result<(), tower_spillover::ConfigError> {
//! // A PTU for 20 requests a second, of which 24 arrive.
//! let overload = Simulation::new(Load::Poisson { rate: 24.0 })
//!     .ptu_fraction(1.0 / 1.2)
//!     .bucket_seconds(1.0)
//!     .warm_up(Duration::from_secs(5))
//!     .length(Duration::from_secs(15));
//! let spilling = overload.run(Policy::SpillFirst)?;
//! let waiting = overload.run(Policy::Reference)?;
//! assert_eq!(spilling.requests, waiting.requests);
//! assert!(waiting.attempts_per_success > 5.0 * spilling.attempts_per_success);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! No connection breaks under way, nothing is hedged; callers do not react to how they are served.
//! [`Conversations`] have prompt caches that are filled by what was served where; elsewhere it is said
//! beforehand what of a prompt is cached.
//! Bucket depth and token estimate of a real PTU are not public. Trust the order of policies more
//! than absolute figures.

mod answer;
mod bucket;
mod chart;
mod classes;
mod clock;
mod conversations;
mod draws;
mod drive;
mod hints;
mod ledger;
mod lives;
mod load;
mod neighbour;
mod network;
mod open;
mod oracle;
mod outage;
mod plan;
mod policy;
mod processes;
mod region_chain;
mod report;
mod simulation;
mod stack;
mod summary;
mod table;
mod worlds;

pub use self::{
    chart::{Curve, svg},
    classes::{Budget, RequestClass},
    conversations::{ConversationReport, Conversations},
    hints::Hints,
    lives::{Ending, Lives},
    load::{Load, MaxTokens, Size, Sizes, Trace, TraceError},
    neighbour::{Neighbour, WhenRefused},
    outage::Outage,
    policy::Policy,
    report::{
        Added, ClassReport, Fate, Open, OutageReport, RequestReport, Server, SimReport, Slot,
    },
    simulation::{Deal, Simulation},
    table::table,
    worlds::{Bar, Others, Rig, Verdict, World},
};
