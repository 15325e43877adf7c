//! Who asks, and whether he may: API keys and tokens (JWT). What is not on the short list of [`layer`] is for nobody
//! without one.

mod call;
mod identity;
mod jwt;
mod layer;
pub(crate) mod secret;
pub mod settings;
mod signatures;

pub(crate) use call::{Demand, Metered, current, may_use};
pub(crate) use identity::Identity;
pub use identity::Role;
pub(crate) use jwt::Jwt;
pub(crate) use layer::{METERED, OPEN, Peer, guard};
