//! Short names for models that are known to run.

use super::{HubError, Location};

/// A model with a name of its own.
pub(crate) struct Name {
    /// What the user types.
    pub(crate) name: &'static str,
    /// Where it is, without `hf:`.
    pub(crate) location: &'static str,
    /// Licence, size and what else must be known before the download.
    pub(crate) note: &'static str,
}

/// All names, the smallest model first.
pub(crate) const NAMES: &[Name] = &[
    Name {
        name: "smollm2-135m-instruct",
        location: "HuggingFaceTB/SmolLM2-135M-Instruct",
        note: "Apache-2.0, 135 M parameters, bf16, 0.3 GB",
    },
    Name {
        name: "qwen2.5-0.5b",
        location: "Qwen/Qwen2.5-0.5B",
        note: "Apache-2.0, 0.5 G parameters, bf16, 1.0 GB",
    },
    Name {
        name: "bitnet-2b-4t",
        location: "microsoft/bitnet-b1.58-2B-4T",
        note: "MIT, 2.4 G parameters, ternary, 1.2 GB",
    },
    Name {
        name: "llama-3.2-1b",
        location: "meta-llama/Llama-3.2-1B",
        note: "Llama 3.2 licence, 1.2 G parameters, bf16, 2.5 GB; gated: needs HF_TOKEN",
    },
];

/// The location that stands behind a name.
pub(crate) fn by_name(name: &str) -> Option<Result<Location, HubError>> {
    NAMES.iter().find(|known| known.name == name).map(|known| Location::parse(known.location))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_location() {
        for known in NAMES {
            assert!(by_name(known.name).unwrap().is_ok(), "{}", known.name);
        }
        assert!(by_name("gpt-5").is_none());
    }
}
