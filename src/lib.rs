//! Tower middleware that makes Azure OpenAI's 429s stop mattering.

pub mod classify;

mod backend;

#[cfg(feature = "emulator")]
pub mod emulator;
