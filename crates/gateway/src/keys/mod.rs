//! API keys: in the database, and in memory as requests look them up.

mod admin;
pub(crate) mod audit;
pub(crate) mod routes;
mod store;

pub use admin::{Admin, NewKey};
pub use store::KeyRecord;
pub(crate) use store::{Cache, Denied};
