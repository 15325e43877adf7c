//! To GGUF: ggml's names and keys, row types kept, ternary matrices as TQ1_0 or TQ2_0.

use std::io::Write;

use engine::ModelConfig;
use engine::config::{Activation, Architecture, Pairing, Rope, RopeScaling};
use engine::names::{Global, Naming};
use engine::weights::WeightMatrix;
use formats::TensorType;
use formats::detect::{FileKind, detect};
use formats::gguf::{Gguf, Metadata, TensorSpec, Value};
use kernels::row::RowType;

use super::error::ConvertError;
use super::exact::{self, Encoding};
use super::parts::{self, PARTS, RowOrder, Tensor};
use super::{Progress, Report, Source, Target, TensorReport, TernaryType, rope_tables, vocabulary};

const TARGET: &str = "gguf";
/// Of how many layers of Gemma 3 one has no sliding window, when no key says it.
const GEMMA_PERIOD: usize = 6;
/// General metadata that describe the file that they stand in, not the model.
const OF_THE_FILE: [&str; 4] =
    ["general.architecture", "general.alignment", "general.file_type", "general.quantization_version"];

/// A tensor of the output and where its bytes come from.
struct Planned<'a> {
    spec: TensorSpec,
    from: String,
    data: Data<'a>,
}

enum Data<'a> {
    Matrix(&'a WeightMatrix, RowOrder, Encoding),
    Vector(&'a [f32], RowOrder),
    Computed(Vec<f32>),
}

pub(super) fn write(
    source: &Source<'_>,
    out: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Report, ConvertError> {
    let config = &source.model.config;
    let name = architecture_name(config);
    let mut report = Report::default();
    check(source, &mut report.notes)?;
    let planned = plan(source)?;
    let mut metadata = Metadata::default();
    metadata.put("general.architecture", Value::String(name))?;
    if planned.iter().any(|p| !matches!(p.spec.ty, TensorType::F32 | TensorType::F16 | TensorType::BF16)) {
        metadata.put("general.quantization_version", Value::U32(2))?;
    }
    put_config(config, name, &mut metadata)?;
    put_kept(source, &mut metadata)?;
    vocabulary::put(source, &mut metadata, &mut report.notes)?;
    if config.rope.scaling.is_some_and(|s| matches!(s, RopeScaling::Llama3 { .. })) {
        report.notes.push(
            "rope scaling llama3: as divisors in rope_freqs.weight; a frequency may differ in its last bit"
                .to_owned(),
        );
    }
    let specs: Vec<TensorSpec> = planned.iter().map(|p| p.spec.clone()).collect();
    let mut next = planned.iter();
    formats::gguf::write(out, &metadata, &specs, &mut |info, bytes| {
        let done = report.tensors.len();
        progress(&info.name, done, specs.len());
        let Some(planned) = next.next() else { return Ok(()) };
        match &planned.data {
            Data::Matrix(weight, order, encoding) => {
                exact::append_matrix(weight, *order, *encoding, TARGET, bytes)?;
            }
            Data::Vector(values, order) => exact::append_vector(values, *order, bytes),
            Data::Computed(values) => exact::append_vector(values, RowOrder::Kept, bytes),
        }
        report.tensors.push(TensorReport {
            name: info.name.clone(),
            shape: info.shape.clone(),
            from: planned.from.clone(),
            to: format!("{:?}", planned.spec.ty),
            bytes: info.bytes,
        });
        Ok::<(), ConvertError>(())
    })?;
    Ok(report)
}

/// `general.architecture`. llama.cpp's BitNet has SiLU (the first models), bitnet.cpp's b1.58 a squared ReLU.
fn architecture_name(config: &ModelConfig) -> &'static str {
    match config.architecture {
        Architecture::BitNet | Architecture::Bitllama if config.activation == Activation::Silu => "bitnet",
        Architecture::BitNet | Architecture::Bitllama => "bitnet-b1.58",
        other => other.name(),
    }
}

/// The pairs that RoPE turns in a GGUF file of this architecture.
fn pairing(architecture: Architecture) -> Pairing {
    if architecture == Architecture::Llama { Pairing::Adjacent } else { Pairing::Half }
}

/// Refuses what no key of GGUF says and readers therefore take for granted.
fn check(source: &Source<'_>, notes: &mut Vec<String>) -> Result<(), ConvertError> {
    let config = &source.model.config;
    let gemma = config.architecture == Architecture::Gemma3;
    let bitnet = matches!(config.architecture, Architecture::BitNet | Architecture::Bitllama);
    let activation = match config.architecture {
        Architecture::Gemma3 => config.activation == Activation::GeluTanh,
        Architecture::BitNet | Architecture::Bitllama => config.activation != Activation::GeluTanh,
        _ => config.activation == Activation::Silu,
    };
    let embedding_scale = if gemma { (config.dim as f32).sqrt() } else { 1.0 };
    let window = match &config.sliding_window {
        None => true,
        Some(window) => {
            gemma && period(&window.layers).is_some() && window.rope == Rope::new(window.rope.theta)
        }
    };
    // Computed in f64 or f32, by the container: the last bit may differ.
    let attention_scale = 1.0 / (config.head_dim as f32).sqrt();
    let same_attention = (config.attention_scale - attention_scale).abs() <= attention_scale * f32::EPSILON;
    for (holds, field, problem) in [
        (activation, "activation", format!("{:?} is not that of the architecture", config.activation)),
        (
            config.embedding_scale == embedding_scale,
            "embedding_scale",
            format!("readers take {embedding_scale}, this model has {}", config.embedding_scale),
        ),
        (
            same_attention,
            "attention_scale",
            format!("readers take 1 / sqrt(head_dim), this model has {}", config.attention_scale),
        ),
        (
            config.int8_linear == bitnet,
            "int8_linear",
            "readers round the activations of BitNet models and of no others".to_owned(),
        ),
        (
            window,
            "sliding_window",
            "readers know Gemma 3's, in all layers but every nth, with plain RoPE".to_owned(),
        ),
    ] {
        if !holds {
            source.lose(Target::Gguf, field, problem, notes)?;
        }
    }
    Ok(())
}

fn put_config(config: &ModelConfig, name: &str, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let int = |field: &str, value: usize| {
        u32::try_from(value)
            .map(Value::U32)
            .map_err(|_| ConvertError::refused(TARGET, field, format!("{value} does not fit an u32")))
    };
    for (key, value) in [
        ("context_length", config.seq_len),
        ("embedding_length", config.dim),
        ("block_count", config.n_layers),
        ("feed_forward_length", config.hidden_dim),
        ("attention.head_count", config.n_heads),
        ("attention.head_count_kv", config.n_kv_heads),
        ("attention.key_length", config.head_dim),
        ("attention.value_length", config.head_dim),
        ("rope.dimension_count", config.head_dim),
        ("vocab_size", config.vocab_size),
    ] {
        metadata.put(&format!("{name}.{key}"), int(key, value)?)?;
    }
    let mut float = |key: &str, value: f32| metadata.put(&format!("{name}.{key}"), Value::F32(value));
    float("attention.layer_norm_rms_epsilon", config.norm_eps)?;
    float("rope.freq_base", config.rope.theta)?;
    if let Some(window) = &config.sliding_window {
        float("rope.freq_base_swa", window.rope.theta)?;
        metadata.put(&format!("{name}.attention.sliding_window"), int("sliding_window", window.window)?)?;
        if let Some(period) = period(&window.layers).filter(|&period| period != GEMMA_PERIOD) {
            let key = format!("{name}.attention.sliding_window_pattern");
            metadata.put(&key, int("layer_types", period)?)?;
        }
    }
    if let Some(RopeScaling::Linear { factor }) = config.rope.scaling {
        metadata.put(&format!("{name}.rope.scaling.type"), Value::String("linear"))?;
        metadata.put(&format!("{name}.rope.scaling.factor"), Value::F32(factor))?;
    }
    Ok(())
}

/// `n`, where all layers but every nth have a sliding window.
fn period(layers: &[bool]) -> Option<usize> {
    let fits = |n: &usize| layers.iter().enumerate().all(|(l, &slides)| slides == ((l + 1) % n != 0));
    std::iter::once(GEMMA_PERIOD).chain(2..=layers.len() + 1).find(fits)
}

/// What a GGUF input says about the model in general, and the RoPE tables of a llama2.c input.
fn put_kept(source: &Source<'_>, metadata: &mut Metadata) -> Result<(), ConvertError> {
    let Some(bytes) = source.file.as_ref().map(|file| file.bytes()) else { return Ok(()) };
    if detect(bytes)? == FileKind::Gguf {
        for entry in Gguf::parse(bytes)?.metadata {
            let general = entry.key.starts_with("general.") && !OF_THE_FILE.contains(&entry.key);
            if general || rope_tables::KEYS.contains(&entry.key) {
                metadata.put(entry.key, entry.value)?;
            }
        }
    } else if let Some(tables) = rope_tables::stored(source)? {
        for (key, table) in rope_tables::KEYS.into_iter().zip(&tables) {
            metadata.put_f32s(key, table)?;
        }
    }
    Ok(())
}

fn plan<'a>(source: &Source<'a>) -> Result<Vec<Planned<'a>>, ConvertError> {
    let (model, config) = (source.model, &source.model.config);
    let rotated = RowOrder::between(config, pairing(config.architecture));
    let mut planned = Vec::new();
    let global = |global| parts::global(model, global).map(|t| (Naming::Gguf.global(global).to_owned(), t));
    let mut tensors: Vec<_> = global(Global::TokenEmbedding).into_iter().collect();
    for (l, layer) in model.weights.layers.iter().enumerate() {
        for part in PARTS {
            let base = Naming::Gguf.part(config.architecture, l, part);
            let weight = parts::of_layer(layer, part, rotated);
            tensors.extend(weight.map(|t| (format!("{base}.weight"), t)));
            tensors.extend(parts::bias(layer, part, rotated).map(|t| (format!("{base}.bias"), t)));
        }
    }
    tensors.extend(global(Global::RmsFinal));
    tensors.extend(global(Global::Wcls));
    if let Some(divisors) = rope_divisors(config) {
        let spec = TensorSpec {
            name: "rope_freqs.weight".to_owned(),
            shape: vec![divisors.len() as u64],
            ty: TensorType::F32,
        };
        planned.push(Planned { spec, from: "config".to_owned(), data: Data::Computed(divisors) });
    }
    for (name, tensor) in tensors {
        match tensor {
            Tensor::Vector(values, order) => planned.push(Planned {
                spec: TensorSpec { name, shape: vec![values.len() as u64], ty: TensorType::F32 },
                from: "vector".to_owned(),
                data: Data::Vector(values, order),
            }),
            Tensor::Matrix(weight, order) => {
                let choice = choose(weight, source)?;
                let scale_name = name.strip_suffix(".weight").map(|base| format!("{base}.scale"));
                planned.push(Planned {
                    spec: TensorSpec {
                        name,
                        shape: vec![weight.rows as u64, weight.cols as u64],
                        ty: choice.ty,
                    },
                    from: source.type_of(&weight.name),
                    data: Data::Matrix(weight, order, choice.encoding),
                });
                if let (Encoding::Codes { scale, .. }, Some(name)) = (choice.encoding, scale_name) {
                    let spec = TensorSpec { name, shape: vec![1], ty: TensorType::F32 };
                    planned.push(Planned {
                        spec,
                        from: "scale".to_owned(),
                        data: Data::Computed(vec![scale]),
                    });
                }
            }
        }
    }
    Ok(planned)
}

/// What the frequencies are divided by (`rope_freqs.weight`), where no key says it.
fn rope_divisors(config: &ModelConfig) -> Option<Vec<f32>> {
    let rope = &config.rope;
    match rope.scaling {
        Some(RopeScaling::Llama3 { .. }) => {
            let plain = Rope::new(rope.theta).inverse_frequencies(config.head_dim);
            let scaled = rope.inverse_frequencies(config.head_dim);
            Some(plain.iter().zip(&scaled).map(|(&plain, &scaled)| divisor(plain, scaled)).collect())
        }
        _ => rope.divisors.clone(),
    }
}

/// `d` with `plain / d == scaled`, or the nearest that there is.
fn divisor(plain: f32, scaled: f32) -> f32 {
    let near = plain / scaled;
    let candidates = [near, near.next_up(), near.next_down()];
    candidates.into_iter().find(|d| plain / d == scaled).unwrap_or(near)
}

struct Choice {
    ty: TensorType,
    encoding: Encoding,
}

/// The type of a matrix: its own where GGUF has it, else one that holds the same values.
fn choose(weight: &WeightMatrix, source: &Source<'_>) -> Result<Choice, ConvertError> {
    let values = |row_type: RowType, ty| Choice { ty, encoding: Encoding::Values(row_type) };
    if let Some(ty) = tensor_type(weight.row_type) {
        return Ok(values(weight.row_type, ty));
    }
    match weight.row_type {
        RowType::Int4 => return Ok(values(RowType::Q4_0, TensorType::Q4_0)),
        RowType::Int8 if exact::int8_scales_fit_f16(weight)? => {
            return Ok(values(RowType::Q8_0, TensorType::Q8_0));
        }
        _ => {}
    }
    let whole_blocks = weight.cols.is_multiple_of(256);
    let (row_type, ty) = match source.options.ternary {
        TernaryType::Tq1_0 => (RowType::TQ1_0, TensorType::TQ1_0),
        TernaryType::Tq2_0 => (RowType::TQ2_0, TensorType::TQ2_0),
    };
    // Only BitNet's readers look for a scale beside a matrix.
    let bitnet = source.model.config.int8_linear;
    Ok(match exact::ternary_scales(weight)? {
        Some(scales) if scales.fit_f16 && whole_blocks => values(row_type, ty),
        Some(scales) if scales.fit_f16 => values(RowType::F16, TensorType::F16),
        Some(exact::TernaryScales { uniform: Some(scale), .. }) if bitnet && whole_blocks => {
            Choice { ty, encoding: Encoding::Codes { row_type, scale, stored: 1.0 } }
        }
        _ => values(RowType::F32, TensorType::F32),
    })
}

/// GGUF's type of a row type that GGUF has.
fn tensor_type(row_type: RowType) -> Option<TensorType> {
    Some(match row_type {
        RowType::F32 => TensorType::F32,
        RowType::F16 => TensorType::F16,
        RowType::BF16 => TensorType::BF16,
        RowType::Q4_0 => TensorType::Q4_0,
        RowType::Q4_1 => TensorType::Q4_1,
        RowType::Q5_0 => TensorType::Q5_0,
        RowType::Q5_1 => TensorType::Q5_1,
        RowType::Q8_0 => TensorType::Q8_0,
        RowType::Q2_K => TensorType::Q2_K,
        RowType::Q3_K => TensorType::Q3_K,
        RowType::Q4_K => TensorType::Q4_K,
        RowType::Q5_K => TensorType::Q5_K,
        RowType::Q6_K => TensorType::Q6_K,
        RowType::IQ4_NL => TensorType::IQ4_NL,
        RowType::IQ4_XS => TensorType::IQ4_XS,
        RowType::MXFP4 => TensorType::MXFP4,
        RowType::TQ1_0 => TensorType::TQ1_0,
        RowType::TQ2_0 => TensorType::TQ2_0,
        RowType::TG1 => TensorType::TG1,
        RowType::TG2 => TensorType::TG2,
        RowType::BG1 => TensorType::BG1,
        RowType::Int4 | RowType::Int8 | RowType::Ternary16 | RowType::Ternary32 => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Llama 3.1 and 3.2, and heads of every width: the frequencies that a reader gets back differ at most in the last bit.
    #[test]
    fn divisors_give_the_scaled_frequencies_back() {
        for (factor, head_dim) in [(8.0, 128), (32.0, 64), (8.0, 16), (4.0, 96)] {
            let scaling = RopeScaling::Llama3 {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 8192.0,
            };
            let plain = Rope::new(500_000.0).inverse_frequencies(head_dim);
            let scaled =
                Rope { scaling: Some(scaling), ..Rope::new(500_000.0) }.inverse_frequencies(head_dim);
            for (plain, scaled) in plain.into_iter().zip(scaled) {
                let back = plain / divisor(plain, scaled);
                assert!((back - scaled).abs() <= scaled * f32::EPSILON, "{plain} {scaled} {back}");
            }
        }
    }
}
