//! Language models on the CPU, usable as a library by itself: no network, no async, no printing.
//!
//! The way of the data: [`Model::load`] tells the format from the bytes, checks the directory of tensors and
//! puts each weight into a row type of the kernels; [`Sequence`] runs tokens through the one forward pass and
//! keeps their keys and values, [`Batch`] does so for several at once; [`sampler`] chooses the next token; [`tokenizer`] makes text of it;
//! [`generate`](mod@generate) is the loop around them, and [`eval`] measures how good the result is.

mod batch;
pub mod chat_template;
pub mod config;
mod draft;
mod error;
pub mod eval;
mod forward;
pub mod generate;
mod head;
mod hidden_states;
pub mod kv_cache;
mod loader;
mod lora;
pub mod machine;
mod model;
pub mod profile;
mod realtime;
mod replace;
mod requantize;
pub mod sampler;
pub mod scheduler;
mod sequence;
mod source;
mod stop;
mod stored;
pub mod synthetic;
pub mod tokenizer;
pub mod weights;

pub use batch::{Batch, LogitsOf, Slot};
pub use config::ModelConfig;
pub use error::EngineError;
pub use forward::MAX_BATCH;
pub use forward::layerwise;
pub use hidden_states::HiddenStates;
pub use kernels::trits::Family as KernelFamily;
pub use kv_cache::{KvCache, KvType};
pub use loader::{I2sLayout, TokenizerFormat, TokenizerSource, names};
pub use model::{LoadOptions, MemoryEstimate, Model, ModelInfo, TensorSummary};
pub use sequence::{EachLogits, Sequence};
pub use source::{BuiltIn, SourceFile};
pub use stored::StoredType;
pub use weights::ActivationMode;
