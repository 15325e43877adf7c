//! The llama2.c family of formats: real files, round trips, exact errors, damage.

#![cfg(test)]

mod bit_order;
mod errors;
mod hostile;
mod real_files;
mod rewrite;
mod round_trip;
mod sample;
mod seeds;
mod writer;
