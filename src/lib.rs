//! Tower middleware that makes Azure OpenAI's 429s stop mattering.

pub mod backend;
pub mod body;
pub mod classify;
pub mod policy;
pub mod region_rotate;
pub mod replay;
#[cfg(feature = "retry")]
pub mod retry_after;
pub mod served;
pub mod smart_fallback;

#[cfg(feature = "emulator")]
pub mod emulator;

mod error;
mod overrides;
mod resend;

#[cfg(feature = "retry")]
pub use self::retry_after::RetryAfterPolicy;
pub use self::{
    backend::{Backend, BackendPool, Credential},
    body::{ResponseBody, TryCloneBody},
    error::ConfigError,
    overrides::{Deadline, MaxWait},
    region_rotate::RegionRotateLayer,
    replay::ReplayLayer,
    served::Served,
    smart_fallback::SmartFallbackLayer,
};
