//! Who used what: a record for each request, kept through crashes and outages, and sums of them by day.
//!
//! A record is appended to the [`journal`] before the end of its answer leaves the server; the [`writer`] brings it into
//! the database a moment later, with the sums per day and the histogram of latencies, in one transaction. A record has a
//! name of its own, so one that is written again, as after a crash, changes nothing.

mod csv;
mod histogram;
mod journal;
mod record;
pub(crate) mod routes;
mod statistics;
mod writer;

pub(crate) use journal::Journal;
pub(crate) use record::UsageRecord;
pub(crate) use writer::{Writer, forget, recall};
