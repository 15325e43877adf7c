//! What the machine offers and what decoding asks of it: bytes a second, bytes a token.

use std::time::Instant;

use kernels::bandwidth::read_all;
use kernels::int_tiles::IntTiles;
use kernels::row::RowType;
use kernels::trits::{Family, Trits};
use kernels::{Isa, Team};
use memmap2::MmapMut;

use crate::error::EngineError;
use crate::model::Model;
use crate::weights::Storage;

/// Measures how fast memory can be read.
#[derive(Debug)]
pub struct ReadBandwidth {
    team: Team,
    map: MmapMut,
}

impl ReadBandwidth {
    /// Takes `bytes` of memory (which should be many times the size of the caches), in huge pages where the
    /// system gives them: that is the fastest that memory can be read. Refused where there is not so much.
    pub fn new(threads: usize, bytes: usize) -> Result<Self, EngineError> {
        let refused = |err| EngineError::Request(format!("{bytes} bytes to measure the bandwidth: {err}"));
        let mut map = MmapMut::map_anon(bytes.max(1)).map_err(refused)?;
        #[cfg(target_os = "linux")]
        {
            // A system without huge pages refuses; small pages are then all that there is.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        map.fill(1);
        Ok(Self { team: Team::new(threads), map })
    }

    /// Bytes a second of the fastest of `passes` over all of the memory.
    pub fn best_of(&self, passes: usize) -> f64 {
        let pass = |_| {
            let started = Instant::now();
            std::hint::black_box(read_all(&self.team, &self.map));
            self.map.len() as f64 / started.elapsed().as_secs_f64()
        };
        (0..passes).map(pass).fold(0.0, f64::max)
    }
}

/// The instruction set in use, as `EDGELLM_ISA` names it.
pub fn isa() -> &'static str {
    kernels::isa().name()
}

/// All instruction sets that this processor can run, the best last.
pub fn isas() -> Vec<&'static str> {
    kernels::dispatch::isas().into_iter().map(kernels::Isa::name).collect()
}

/// Names of those of its features that the processor says it has, as far as they matter to kernels.
pub fn cpu_features() -> Vec<&'static str> {
    macro_rules! detected {
        ($detect:ident: $($name:tt),+) => {
            [$(($name, std::arch::$detect!($name))),+].into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
        };
    }
    #[cfg(target_arch = "x86_64")]
    return detected!(is_x86_feature_detected: "ssse3", "sse4.1", "avx", "avx2", "fma", "f16c", "avxvnni", "avx512f",
        "avx512bw", "avx512vl", "avx512vnni", "avx512vbmi", "avx512vbmi2", "avx512bf16", "gfni");
    #[cfg(target_arch = "aarch64")]
    return detected!(is_aarch64_feature_detected: "neon", "fp16", "dotprod", "i8mm", "bf16", "sve");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return Vec::new();
}

/// Which kernels matrices of some types run on, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelChoice {
    /// The types.
    pub types: &'static str,
    /// `lookup`, `multiply` or `reference`.
    pub family: &'static str,
    /// The reason, for the user.
    pub why: String,
}

/// The choice of `--kernel auto` for every kind of matrices.
pub fn kernel_choices() -> Vec<KernelChoice> {
    let isa = kernels::isa().name();
    let by_row = |types, how: &str| {
        if kernels::isa() == Isa::Scalar {
            KernelChoice { types, family: "reference", why: format!("{how}; plain code, row by row") }
        } else {
            KernelChoice { types, family: "multiply", why: format!("{how}, row by row with {isa}") }
        }
    };
    let tiles = |types, family, how: &str| KernelChoice { types, family, why: format!("{how} ({isa})") };
    let mut choices = vec![by_row("f32, f16, bf16", "f32 activations")];
    if IntTiles::takes(RowType::Q4_0) {
        let how = "tiles of 4- to 8-bit codes on dot-product instructions measured fastest";
        choices.push(tiles("q4, q5, q8, q4_k, q5_k, q6_k, int4", "multiply", how));
        choices.push(by_row("other quantized", "int8 activations with a scale for each 32"));
    } else {
        choices.push(by_row("quantized", "int8 activations with a scale for each 32"));
    }
    if Trits::are_known() {
        let how = "five weights a byte index tables of partial sums: measured fastest for one token, on AVX2 up to three";
        choices.push(tiles("ternary, decode", "lookup", how));
        let how = "dot-product instructions: measured fastest for several tokens at once";
        choices.push(tiles("ternary, some tokens", "multiply", how));
        if Trits::looks_up_many() {
            let how = "five weights a byte index tables of sums for 32 tokens: measured fastest for 20 tokens or more";
            choices.push(tiles("ternary, prompts", "lookup", how));
        }
    } else {
        choices.push(by_row("ternary", "int8 activations with one scale a token"));
    }
    choices
}

impl Model {
    /// The family of kernels that most of the model runs on: what `--kernel` asked for where the matrices can be had in
    /// that form; `auto` means lookup for one token and multiply for several.
    pub fn kernel_family(&self) -> &'static str {
        let matrix = self.weights.layers.first().map(|layer| &layer.w1.weight);
        let tiled = matrix
            .is_some_and(|m| m.view().is_ok_and(|view| Trits::takes(&view)) || IntTiles::takes(m.row_type));
        match matrix.map(|matrix| &matrix.storage) {
            Some(Storage::Trits(trits)) => match trits.family() {
                Family::Auto => "auto",
                Family::Lookup => "lookup",
                Family::Multiply | Family::Reference => "multiply",
            },
            Some(Storage::Ints(_)) => "multiply",
            Some(Storage::Rows(_)) if tiled => "reference",
            _ if kernels::isa() == Isa::Scalar => "reference",
            _ => "multiply",
        }
    }

    /// Bytes that decoding one token at `position` has to read: all matrices of the layers and the classifier
    /// (or what it is scanned by, without the few rows that are then computed exactly), the norms and biases, one row of the embedding, and the keys and values of the positions before it.
    pub fn bytes_per_token(&self, position: usize) -> u64 {
        let c = &self.config;
        let w = &self.weights;
        let floats = |vector: &Option<Vec<f32>>| vector.as_ref().map_or(0, |v| v.len() * 4);
        let classifier = w.scan.as_ref().map_or_else(|| w.classifier().byte_len(), |scan| scan.byte_len());
        let mut bytes = classifier + w.rms_final.len() * 4;
        if w.wcls.is_some() {
            bytes += w.token_embedding.byte_len() / w.token_embedding.rows.max(1);
        }
        for layer in &w.layers {
            bytes += layer.matrices().map(|m| m.byte_len()).sum::<usize>();
            bytes += (layer.rms_att.len() + layer.rms_ffn.len()) * 4;
            let norms = [&layer.q_norm, &layer.k_norm, &layer.attn_sub_norm, &layer.post_att_norm];
            bytes += norms
                .into_iter()
                .chain([&layer.ffn_sub_norm, &layer.post_ffn_norm])
                .map(floats)
                .sum::<usize>();
            bytes += layer.linears().map(|linear| floats(&linear.bias)).sum::<usize>();
        }
        let mut cached = self.kv_type.bytes(c, position);
        if let Some(sliding) = &c.sliding_window {
            let beyond = cached.saturating_sub(self.kv_type.bytes(c, position.min(sliding.window)));
            let sliding_layers = sliding.layers.iter().filter(|sliding| **sliding).count();
            cached -= beyond / c.n_layers.max(1) * sliding_layers;
        }
        (bytes + cached) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LoadOptions;
    use crate::stored::StoredType;
    use crate::synthetic::{Shape, Synthetic};

    #[test]
    fn bandwidth_is_positive() {
        assert!(ReadBandwidth::new(2, 1 << 20).unwrap().best_of(2) > 0.0);
    }

    #[test]
    fn a_token_reads_all_weights_and_the_cache() {
        let what =
            Synthetic { shape: Shape::Smollm135m, layers: StoredType::Ternary, head: StoredType::Int8 };
        let options = LoadOptions { threads: Some(1), exact_head: true, ..LoadOptions::default() };
        let model = Model::synthetic(what, &options).unwrap();
        let matrices: usize = model.weights.matrices().map(|m| m.byte_len()).sum();
        let norms = (2 * 30 + 1) * 576 * 4;
        assert_eq!(model.bytes_per_token(0), (matrices + norms) as u64);
        // f16 keys and values of 3 heads of 64 in 30 layers
        assert_eq!(model.bytes_per_token(64) - model.bytes_per_token(0), 64 * 30 * 2 * 3 * 64 * 2);
    }
}
