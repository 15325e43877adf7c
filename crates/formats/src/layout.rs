//! Where everything stands in a file of the llama2.c family. One description per format serves its reader and
//! its writer: the reader builds it over the file's bytes, which are checked on the way, the writer over none.

use std::io::{self, Write};
use std::ops::Range;

use crate::error::FormatError;
use crate::header::Header;
use crate::reader::Reader;
use crate::tensor::{Layout, TensorInfo, TensorType};
use crate::ternary;
use crate::writer::TensorData;

/// A tensor of the model, or the stack of that tensor over the layers, before its encoding is known.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Name within the layer, or of the tensor when it is outside the layers.
    pub(crate) stem: &'static str,
    /// The layers that are stacked.
    layers: Option<Range<u64>>,
    /// Rows of a matrix; `None` for a vector.
    rows: Option<u64>,
    /// Length of a row or of the vector.
    cols: u64,
    /// Whether a format that quantizes may quantize it: the weight matrices.
    pub(crate) quantizable: bool,
}

impl Spec {
    /// A weight matrix outside the layers.
    pub(crate) fn matrix(stem: &'static str, rows: usize, cols: usize) -> Self {
        Self { stem, layers: None, rows: Some(rows as u64), cols: cols as u64, quantizable: true }
    }

    /// A vector outside the layers.
    pub(crate) fn vector(stem: &'static str, len: usize) -> Self {
        Self { stem, layers: None, rows: None, cols: len as u64, quantizable: false }
    }

    /// A table of floats that no format quantizes.
    pub(crate) fn table(stem: &'static str, rows: usize, cols: usize) -> Self {
        Self { quantizable: false, ..Self::matrix(stem, rows, cols) }
    }

    /// The same tensor in each of these layers, stacked.
    pub(crate) fn in_layers(self, layers: Range<usize>) -> Self {
        Self { layers: Some(layers.start as u64..layers.end as u64), ..self }
    }

    /// Rows of the whole stack.
    pub(crate) fn stacked_rows(&self) -> u64 {
        self.rows.unwrap_or(1) * self.layer_count()
    }

    /// Number of tensors in the stack.
    fn layer_count(&self) -> u64 {
        self.layers.as_ref().map_or(1, |layers| layers.end - layers.start)
    }

    /// Length of a row.
    pub(crate) fn cols(&self) -> u64 {
        self.cols
    }
}

/// The tensors of llama2.c v0 in file order; T-MAC and Q4V1 keep that order.
pub(crate) fn legacy_order(header: &Header) -> Vec<Spec> {
    let &Header { dim, hidden_dim, n_layers, vocab_size, seq_len, .. } = header;
    let (kv_dim, half) = (header.kv_dim(), header.head_dim() / 2);
    let layers = 0..n_layers;
    let mut specs = vec![Spec::matrix("token_embedding", vocab_size, dim)];
    specs.push(Spec::vector("rms_att", dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("wq", dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("wk", kv_dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("wv", kv_dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("wo", dim, dim).in_layers(layers.clone()));
    specs.push(Spec::vector("rms_ffn", dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("w1", hidden_dim, dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("w2", dim, hidden_dim).in_layers(layers.clone()));
    specs.push(Spec::matrix("w3", hidden_dim, dim).in_layers(layers));
    specs.push(Spec::vector("rms_final", dim));
    specs.push(Spec::table("freq_cis_real", seq_len, half));
    specs.push(Spec::table("freq_cis_imag", seq_len, half));
    if !header.shared_classifier {
        specs.push(Spec::matrix("wcls", vocab_size, dim));
    }
    specs
}

/// How a stack is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    F32,
    TernaryRun,
    TernaryRows,
    TernaryScaled { most_significant_first: bool },
    Int4Run,
    Int8Groups { group: u64 },
}

impl Encoding {
    /// Whether the whole stack is one unit whose blocks may cross from one layer into the next.
    fn is_run(self) -> bool {
        matches!(self, Self::TernaryRun | Self::Int4Run)
    }

    /// Bytes of a unit of `rows` rows; `None` on overflow or where the format cannot store that shape.
    fn bytes(self, rows: u64, cols: u64) -> Option<u64> {
        let weights = rows.checked_mul(cols)?;
        match self {
            Self::F32 => weights.checked_mul(4),
            Self::TernaryRun => Some(weights.div_ceil(4)),
            Self::TernaryRows => rows.checked_mul(2 + cols.div_ceil(4)),
            Self::TernaryScaled { .. } if cols.is_multiple_of(4) => (weights / 4).checked_add(4),
            Self::Int4Run => weights.div_ceil(32).checked_mul(18),
            Self::Int8Groups { group } if group > 0 && weights.is_multiple_of(group) => {
                (weights / group).checked_mul(4)?.checked_add(weights)
            }
            Self::TernaryScaled { .. } | Self::Int8Groups { .. } => None,
        }
    }

    fn layout(self, first: u64) -> Layout {
        match self {
            Self::F32 => Layout::Rows(TensorType::F32),
            Self::TernaryRun => Layout::TernaryRun { first },
            Self::TernaryRows => Layout::TernaryRows,
            Self::TernaryScaled { most_significant_first } => {
                Layout::TernaryScaled { most_significant_first }
            }
            Self::Int4Run => Layout::Int4Run { first },
            Self::Int8Groups { group } => Layout::Int8Groups { group },
        }
    }
}

/// Bytes of a file that are neither tensor nor padding: header, flags, dimensions.
#[derive(Debug)]
struct Mark {
    offset: u64,
    bytes: Vec<u8>,
}

/// The marks and tensors of a file, in file order without a gap.
#[derive(Debug)]
pub(crate) struct Directory<'a> {
    file: Option<&'a [u8]>,
    marks: Vec<Mark>,
    tensors: Vec<TensorInfo>,
    end: u64,
}

impl<'a> Directory<'a> {
    /// Empty directory of a file that exists: everything added is compared with it or must lie inside it.
    pub(crate) fn over(file: &'a [u8]) -> Self {
        Self { file: Some(file), marks: Vec::new(), tensors: Vec::new(), end: 0 }
    }

    /// Empty directory of a file to be written.
    pub(crate) fn planned() -> Self {
        Self { file: None, marks: Vec::new(), tensors: Vec::new(), end: 0 }
    }

    /// Where the next mark or tensor begins.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// A reader of the file at [`Directory::end`]; `None` when the file is yet to be written.
    pub(crate) fn reader(&self, what: &str) -> Result<Option<Reader<'a>>, FormatError> {
        let Some(file) = self.file else { return Ok(None) };
        let mut reader = Reader::new(file);
        reader.seek(self.end, what)?;
        Ok(Some(reader))
    }

    /// Adds bytes that follow from what is already known. In a file that exists they must be these.
    pub(crate) fn mark(&mut self, what: &str, bytes: &[u8]) -> Result<(), FormatError> {
        if let Some(mut reader) = self.reader(what)? {
            let found = reader.bytes(bytes.len() as u64, what)?;
            if let Some(i) = found.iter().zip(bytes).position(|(found, expected)| found != expected) {
                let problem = match (<[u8; 4]>::try_from(found), <[u8; 4]>::try_from(bytes)) {
                    (Ok(found), Ok(expected)) => {
                        format!(
                            "must be {}, but is {}",
                            i32::from_le_bytes(expected),
                            i32::from_le_bytes(found)
                        )
                    }
                    _ => format!("byte {i} must be {:#04x}, but is {:#04x}", bytes[i], found[i]),
                };
                return Err(FormatError::field(what, self.end + i as u64, problem));
            }
        }
        self.marks.push(Mark { offset: self.end, bytes: bytes.to_vec() });
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Adds a stack of tensors, one entry a layer. In a file that exists each must lie inside it.
    pub(crate) fn push(&mut self, spec: &Spec, encoding: Encoding) -> Result<(), FormatError> {
        let rows = spec.rows.unwrap_or(1);
        let name = |i: u64| match &spec.layers {
            Some(layers) => format!("layers.{}.{}", layers.start + i, spec.stem),
            None => spec.stem.to_owned(),
        };
        if encoding.is_run() {
            let bytes = self.fit(spec.stem, encoding.bytes(spec.stacked_rows(), spec.cols))?;
            for i in 0..spec.layer_count() {
                let layout = encoding.layout(i * rows * spec.cols);
                let shape = vec![rows, spec.cols];
                self.tensors.push(TensorInfo { name: name(i), shape, layout, offset: self.end, bytes });
            }
            self.end += bytes;
            return Ok(());
        }
        for i in 0..spec.layer_count() {
            let name = name(i);
            let bytes = self.fit(&name, encoding.bytes(rows, spec.cols))?;
            let shape = spec.rows.into_iter().chain([spec.cols]).collect();
            let offset = self.end;
            self.tensors.push(TensorInfo { name, shape, layout: encoding.layout(0), offset, bytes });
            self.end += bytes;
        }
        Ok(())
    }

    /// The number of bytes, when a unit of that size fits at the end.
    fn fit(&self, name: &str, bytes: Option<u64>) -> Result<u64, FormatError> {
        let bytes = bytes.ok_or_else(|| {
            FormatError::tensor(name, self.end, "the format cannot store a tensor of this shape")
        })?;
        if let Some(mut reader) = self.reader(name)? {
            reader.bytes(bytes, &format!("tensor {name}"))?;
        }
        match self.end.checked_add(bytes) {
            Some(_) => Ok(bytes),
            None => Err(FormatError::tensor(name, self.end, "the file would be too large")),
        }
    }

    /// Refuses bytes behind the last tensor.
    pub(crate) fn finish(&self) -> Result<(), FormatError> {
        match self.reader("end of the file")?.map_or(0, |reader| reader.remaining()) {
            0 => Ok(()),
            extra => Err(FormatError::TrailingBytes { offset: self.end, extra }),
        }
    }

    /// The tensors, one a layer, in file order.
    pub(crate) fn into_tensors(self) -> Vec<TensorInfo> {
        self.tensors
    }

    /// The units that are stored: each tensor, but the layers of a run as one, called by its stem, with shape
    /// `[layers, rows, cols]`.
    fn units(&self) -> impl Iterator<Item = TensorInfo> {
        self.tensors.chunk_by(|a, b| a.offset == b.offset).filter_map(|layers| {
            let mut unit = layers.first()?.clone();
            if layers.len() > 1 {
                unit.name = unit.name.rsplit('.').next()?.to_owned();
                unit.shape.insert(0, layers.len() as u64);
            }
            Some(unit)
        })
    }

    /// Checks every ternary code of the file.
    pub(crate) fn check_codes(&self) -> Result<(), FormatError> {
        let Some(file) = self.file else { return Ok(()) };
        for unit in self.units() {
            let range = unit.range(file.len() as u64)?;
            ternary::check_unit(&unit, &file[range])?;
        }
        Ok(())
    }

    /// Writes the file: asks for the encoded bytes of each unit in file order and checks their number and
    /// ternary codes.
    pub(crate) fn write<E: From<io::Error> + From<FormatError>>(
        &self,
        out: &mut dyn Write,
        data: &mut TensorData<'_, E>,
    ) -> Result<(), E> {
        let mut marks = self.marks.iter().peekable();
        let mut buffer = Vec::new();
        for unit in self.units() {
            while let Some(mark) = marks.next_if(|mark| mark.offset <= unit.offset) {
                out.write_all(&mark.bytes)?;
            }
            buffer.clear();
            data(&unit, &mut buffer)?;
            if buffer.len() as u64 != unit.bytes {
                let problem = format!("{} bytes were given for {}", buffer.len(), unit.bytes);
                return Err(FormatError::tensor(unit.name, unit.offset, problem).into());
            }
            ternary::check_unit(&unit, &buffer)?;
            out.write_all(&buffer)?;
        }
        Ok(())
    }
}
