//! Rounding the rows of a matrix together with what the model feeds it.

mod codes;
mod grid;
mod metric;
mod place;
mod products;

pub(crate) use codes::{SWEEPS, solve};
pub(crate) use grid::Grid;
pub(crate) use metric::{Metric, divide_one};
pub(crate) use products::{Products, Rows};
