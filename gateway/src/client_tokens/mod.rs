//! Tokens that clients send instead of a key: JSON Web Tokens of an Entra tenant, or of another
//! OpenID provider.

mod claims;
mod document;
mod keys;
mod signature;
mod verifier;

pub(crate) use self::{
    claims::Claims,
    verifier::{TokenError, Verifier, looks_like_token},
};
