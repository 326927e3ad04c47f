//! The layers over the emulator in virtual time: an hour of traffic in seconds.
//!
//! It shows the effect of a setting before it is deployed: how much of a PTU is used, how much is
//! spilled, how long callers wait, and how many attempts one success takes. The layers are the real
//! ones, the [emulator](spillover_emulator) plays the service, a network delays the messages
//! between them, and tokio's paused clock jumps from one event to the next. Runs with the same seed
//! are identical bit by bit, and every [`Policy`] gets the same requests. A [`World`] is a named
//! variation of the usual setting, such as false hints, with requirements that the gate has to meet
//! in it.
//!
//! ```
//! use std::time::Duration;
//! use spillover_simulator::{Load, Policy, Simulation};
//!
//! # fn main() -> Result<(), tower_spillover::ConfigError> {
//! // A PTU sized for 20 requests per second, of which 24 arrive.
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
//! # Limitations
//!
//! Connections do not break in flight, requests are not hedged, and callers do not react to how
//! they are served. Prompt caches are filled by the requests that were served only in
//! [`Conversations`]; elsewhere the cached share of a prompt is an input. The bucket depth and the
//! token estimate of a real PTU are not public. Trust the order of policies more than absolute
//! figures.

mod answer;
mod bucket;
mod chart;
mod classes;
mod clock;
mod conversations;
mod draws;
mod drive;
mod fleet;
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
