//! What users of the library write, each kind of them in a module: types that can be named in fields and
//! signatures, in the lines between the layers and what the user has.

#[cfg(feature = "adapters")]
pub mod axum_user;
pub mod hyper_user;
pub mod own_rules;
#[cfg(feature = "adapters")]
pub mod reqwest_user;
#[cfg(feature = "retry")]
pub mod retry_user;
#[cfg(feature = "adapters")]
pub mod tonic_user;

#[cfg(test)]
mod azure;
