//! Conversions of real and of tiny models: nothing changes, or the model is refused.

#![cfg(test)]

mod helpers;
mod kept;
mod refused;
mod synthetic;
mod ternary;
mod tokenizers;
