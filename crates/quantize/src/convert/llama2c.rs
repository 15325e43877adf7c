//! To the llama2.c family: llama2.c v0 and v1 in f32, T-MAC v2 with ternary rows and a metadata trailer.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use engine::ModelConfig;
use engine::config::{Architecture, Pairing};
use engine::names::{Global, Naming};
use engine::weights::WeightMatrix;
use formats::checkpoint::Checkpoint;
use formats::detect::FileKind;
use formats::llama2c::{self, Header, Version};
use formats::tmac_v2::{self, Variant};
use formats::{Layout, TensorInfo};
use half::f16;
use kernels::row::RowType;

use super::error::ConvertError;
use super::exact::{self, Encoding, TernaryScales};
use super::parts::{self, PARTS, RowOrder, Tensor};
use super::{Progress, Report, Source, Target, TensorReport, rope_tables, trailer};

pub(super) fn write(
    source: &Source<'_>,
    target: Target,
    out: &mut dyn Write,
    progress: &mut Progress<'_>,
) -> Result<Report, ConvertError> {
    let config = &source.model.config;
    let mut report = Report::default();
    let variant = variant(source, target, &mut report.notes)?;
    let mut tensors = named_tensors(source, target, variant, &mut report.notes)?;
    let shared_classifier = !tensors.contains_key(Naming::Llama2c.global(Global::Wcls));
    let header = header(config, target, shared_classifier)?;
    let ternary = if target == Target::TmacV2 { Ternary::of(&tensors, target)? } else { Ternary::default() };
    let keep_f32 = |stem: &str| !ternary.stems.contains(stem);
    let metadata = match target {
        Target::TmacV2 => Some(trailer::of(source, variant, &ternary.scales, &mut report.notes)?),
        _ => None,
    };
    check_config(source, target, &header, variant, metadata.as_ref(), &mut report.notes)?;
    let planned = match target {
        Target::TmacV2 => tmac_v2::tensors(&header, variant, &keep_f32)?,
        Target::Llama2cV1 => llama2c::tensors(&header, Version::V1)?,
        _ => llama2c::tensors(&header, Version::V0)?,
    };
    check_places(source, &mut tensors, &planned, target, &mut report.notes)?;
    if config.architecture == Architecture::Bitllama {
        report
            .notes
            .push("norms: bitllama leaves out their weights, 1 / length each; they are written".to_owned());
    }
    let tables = rope_tables::of(source)?;
    let mut data = |info: &TensorInfo, bytes: &mut Vec<u8>| -> Result<(), ConvertError> {
        progress(&info.name, report.tensors.len(), planned.len());
        let row_type = if info.layout == Layout::TernaryRows { RowType::Ternary16 } else { RowType::F32 };
        let from = match (tensors.get(&info.name), rope_tables::NAMES.iter().position(|n| *n == info.name)) {
            (Some(Tensor::Matrix(weight, order)), _) => {
                let encoding = match (row_type, ternary.scales.get(&info.name)) {
                    (RowType::Ternary16, Some(&scale)) => {
                        Encoding::Codes { row_type, scale, stored: rounded(scale) }
                    }
                    _ => Encoding::Values(row_type),
                };
                exact::append_matrix(weight, *order, encoding, target.name(), bytes)?;
                source.type_of(&weight.name)
            }
            (Some(Tensor::Vector(values, order)), _) => {
                exact::append_vector(values, *order, bytes);
                "vector".to_owned()
            }
            (None, Some(table)) => {
                exact::append_vector(&tables[table], RowOrder::Kept, bytes);
                "RoPE table".to_owned()
            }
            (None, None) => return Err(no_source(&info.name, target)),
        };
        report.tensors.push(TensorReport {
            name: info.name.clone(),
            shape: info.shape.clone(),
            from,
            to: row_type.name().to_owned(),
            bytes: info.bytes,
        });
        Ok(())
    };
    match target {
        Target::TmacV2 => tmac_v2::write(out, &header, variant, &keep_f32, metadata.as_ref(), &mut data)?,
        Target::Llama2cV1 => llama2c::write(out, &header, Version::V1, &mut data)?,
        _ => llama2c::write(out, &header, Version::V0, &mut data)?,
    }
    Ok(report)
}

/// The variant that holds the model's architecture.
pub(super) fn variant(
    source: &Source<'_>,
    target: Target,
    notes: &mut Vec<String>,
) -> Result<Variant, ConvertError> {
    match (target, source.model.config.architecture) {
        (_, Architecture::Llama) => Ok(Variant::Llama),
        (Target::TmacV2, Architecture::BitNet | Architecture::Bitllama) => Ok(Variant::BitNet),
        (_, other) => {
            source.lose(target, "architecture", other.name().to_owned(), notes)?;
            Ok(Variant::Llama)
        }
    }
}

/// The model's tensors by the names of the llama2.c family.
pub(super) fn named_tensors<'a>(
    source: &Source<'a>,
    target: Target,
    variant: Variant,
    notes: &mut Vec<String>,
) -> Result<HashMap<String, Tensor<'a>>, ConvertError> {
    let (model, config) = (source.model, &source.model.config);
    let rotated = RowOrder::between(config, pairing(variant));
    let mut tensors = HashMap::new();
    for global in [Global::TokenEmbedding, Global::RmsFinal, Global::Wcls] {
        let tensor = parts::global(model, global).map(|t| (Naming::Llama2c.global(global).to_owned(), t));
        tensors.extend(tensor);
    }
    if variant == Variant::BitNet {
        // This variant has no tied classifier: the embedding is stored twice.
        let classifier = Tensor::Matrix(model.weights.classifier(), RowOrder::Kept);
        tensors.insert(Naming::Llama2c.global(Global::Wcls).to_owned(), classifier);
    }
    for (l, layer) in model.weights.layers.iter().enumerate() {
        for part in PARTS {
            let name = Naming::Llama2c.weight(config.architecture, l, part);
            if parts::bias(layer, part, rotated).is_some() {
                source.lose(target, &name, "it has a bias".to_owned(), notes)?;
            }
            tensors.extend(parts::of_layer(layer, part, rotated).map(|t| (name, t)));
        }
    }
    Ok(tensors)
}

/// The pairs that RoPE turns in files of this variant.
pub(super) fn pairing(variant: Variant) -> Pairing {
    match variant {
        Variant::Llama => Pairing::Adjacent,
        Variant::BitNet => Pairing::Half,
    }
}

pub(super) fn header(
    config: &ModelConfig,
    target: Target,
    shared_classifier: bool,
) -> Result<Header, ConvertError> {
    if config.q_dim() != config.dim {
        let problem = format!("{} heads of {} are not dim {}", config.n_heads, config.head_dim, config.dim);
        return Err(ConvertError::refused(target.name(), "head_dim", problem));
    }
    let header = Header {
        dim: config.dim,
        hidden_dim: config.hidden_dim,
        n_layers: config.n_layers,
        n_heads: config.n_heads,
        n_kv_heads: config.n_kv_heads,
        vocab_size: config.vocab_size,
        seq_len: config.seq_len,
        shared_classifier,
    };
    header.check()?;
    Ok(header)
}

/// Refuses what a reader of the target would take differently: its own idea of the configuration is compared.
pub(super) fn check_config(
    source: &Source<'_>,
    target: Target,
    header: &Header,
    variant: Variant,
    metadata: Option<&serde_json::Value>,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let config = &source.model.config;
    let read = ModelConfig::from_checkpoint(&Checkpoint {
        kind: match target {
            Target::TmacV2 => FileKind::TmacV2,
            Target::TmacV1 => FileKind::TmacV1,
            Target::Q4V1 => FileKind::Int4,
            _ => FileKind::Llama2cV0,
        },
        header: *header,
        bitnet: variant == Variant::BitNet,
        tensors: Vec::new(),
        trailer: metadata.cloned(),
    });
    let differs = [
        ("rope", config.rope != read.rope, format!("{:?}, readers take {:?}", config.rope, read.rope)),
        (
            "norm_eps",
            config.norm_eps != read.norm_eps,
            format!("{}, readers take {}", config.norm_eps, read.norm_eps),
        ),
        (
            "activation",
            config.activation != read.activation,
            format!("{:?}, readers take {:?}", config.activation, read.activation),
        ),
        (
            "attention_scale",
            config.attention_scale != read.attention_scale,
            format!("{}, readers take {}", config.attention_scale, read.attention_scale),
        ),
        (
            "embedding_scale",
            config.embedding_scale != read.embedding_scale,
            format!("{}, readers take {}", config.embedding_scale, read.embedding_scale),
        ),
        (
            "int8_linear",
            config.int8_linear != read.int8_linear,
            format!("{}, readers take {}", config.int8_linear, read.int8_linear),
        ),
        ("sliding_window", config.sliding_window.is_some(), "there is no place for it".to_owned()),
    ];
    let differs = differs.into_iter().filter(|(_, differs, _)| *differs);
    differs.into_iter().try_for_each(|(field, _, problem)| source.lose(target, field, problem, notes))
}

/// Every tensor of the model has a place in the file, and every place a tensor.
pub(super) fn check_places(
    source: &Source<'_>,
    tensors: &mut HashMap<String, Tensor<'_>>,
    planned: &[TensorInfo],
    target: Target,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let places: HashSet<&str> = planned.iter().map(|info| info.name.as_str()).collect();
    let mut lost: Vec<String> =
        tensors.keys().filter(|name| !places.contains(name.as_str())).cloned().collect();
    lost.sort_unstable();
    for name in lost {
        source.lose(target, &name, "there is no place for it".to_owned(), notes)?;
        tensors.remove(&name);
    }
    let known = |name: &str| tensors.contains_key(name) || rope_tables::NAMES.contains(&name);
    match places.iter().find(|name| !known(name)) {
        Some(name) => Err(no_source(name, target)),
        None => Ok(()),
    }
}

pub(super) fn no_source(name: &str, target: Target) -> ConvertError {
    ConvertError::refused(target.name(), name, "the model has no such tensor")
}

/// What T-MAC v2 stores as ternary rows.
#[derive(Debug, Default)]
struct Ternary {
    /// Names within the layer of the matrices that are ternary in every layer.
    stems: HashSet<String>,
    /// Scales that f16 rounds, by the tensor's name: the same for all rows.
    scales: HashMap<String, f32>,
}

impl Ternary {
    fn of(tensors: &HashMap<String, Tensor<'_>>, target: Target) -> Result<Self, ConvertError> {
        let (mut ternary, mut other) = (Self::default(), HashSet::new());
        let mut linear = false;
        for (name, tensor) in tensors {
            let Tensor::Matrix(weight, _) = tensor else { continue };
            let stem = name.rsplit('.').next().unwrap_or(name);
            if other.contains(stem) {
                continue;
            }
            match storable(weight)? {
                None => {
                    other.insert(stem.to_owned());
                }
                Some(scale) => {
                    linear |= stem != name;
                    ternary.stems.insert(stem.to_owned());
                    ternary.scales.extend(scale.map(|scale| (name.clone(), scale)));
                }
            }
        }
        ternary.stems.retain(|stem| !other.contains(stem));
        ternary
            .scales
            .retain(|name, _| name.rsplit('.').next().is_some_and(|stem| ternary.stems.contains(stem)));
        if !linear || ternary.stems.is_empty() {
            let problem = "none of them is ternary: this format is for ternary models";
            return Err(ConvertError::refused(target.name(), "weights", problem));
        }
        Ok(ternary)
    }
}

/// `None`: not as ternary rows. Otherwise the scale of all rows, where f16 rounds it.
fn storable(weight: &WeightMatrix) -> Result<Option<Option<f32>>, ConvertError> {
    let normal = |scale: &f32| f16::from_f32(*scale).is_normal();
    Ok(match exact::ternary_scales(weight)? {
        Some(TernaryScales { fit_f16: true, .. }) => Some(None),
        Some(TernaryScales { uniform, .. }) => uniform.filter(normal).map(Some),
        None => None,
    })
}

/// What f16 makes of it.
fn rounded(scale: f32) -> f32 {
    f16::from_f32(scale).to_f32()
}
