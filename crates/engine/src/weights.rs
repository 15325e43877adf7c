//! The weights of a model, each matrix in the row type that the kernels read.

use kernels::int_tiles::{IntTiles, matmul_int_tiles};
use kernels::row::RowType;
use kernels::trits::{Family, Trits, matmul_trits};
use kernels::{ActivationForm, Activations, Arena, MatmulError, Matrix, Team};

use smallvec::SmallVec;

use crate::head::Scan;
use crate::source::Bytes;

/// Fewer rows stay as they are: filled up to a tile they would take many times the memory of the file.
const MIN_PACKED_ROWS: usize = 32;

/// A weight matrix `[rows, cols]` = `[out, in]`.
#[derive(Debug)]
pub struct WeightMatrix {
    /// Its name in the file.
    pub name: String,
    /// Type of its rows in memory.
    pub row_type: RowType,
    /// Output dimension.
    pub rows: usize,
    /// Input dimension.
    pub cols: usize,
    pub(crate) storage: Storage,
}

/// Where the weights of a matrix are.
#[derive(Debug)]
pub(crate) enum Storage {
    /// Row by row.
    Rows(Bytes),
    /// In tiles of ternary weights.
    Trits(Trits),
    /// In tiles of 4- to 8-bit codes.
    Ints(IntTiles),
}

impl WeightMatrix {
    /// A matrix stored row by row.
    pub(crate) fn of_rows(name: String, row_type: RowType, rows: usize, cols: usize, bytes: Bytes) -> Self {
        Self { name, row_type, rows, cols, storage: Storage::Rows(bytes) }
    }

    /// The rows as the kernels take them; refused when the bytes are not those of the shape, or in tiles.
    pub fn view(&self) -> Result<Matrix<'_>, MatmulError> {
        let bytes = match &self.storage {
            Storage::Rows(bytes) => bytes.as_slice(),
            Storage::Trits(_) | Storage::Ints(_) => &[],
        };
        Matrix::new(self.row_type, self.rows, self.cols, bytes)
    }

    /// Whether it was repacked into memory of its own; otherwise it is read in place from the mapped file.
    pub fn is_owned(&self) -> bool {
        !matches!(self.storage, Storage::Rows(Bytes::Mapped(..)))
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        match &self.storage {
            Storage::Rows(bytes) => bytes.as_slice().len(),
            Storage::Trits(trits) => trits.byte_len(),
            Storage::Ints(ints) => ints.byte_len(),
        }
    }

    /// Writes row `r` as f32 to `out`, `[cols]`: the look-up of an embedding.
    pub(crate) fn dequantize_row(&self, r: usize, out: &mut [f32]) -> Result<(), MatmulError> {
        match &self.storage {
            Storage::Rows(_) => self.view()?.dequantize_row(r, out),
            Storage::Trits(trits) => trits.dequantize_row(r, out),
            Storage::Ints(ints) => ints.dequantize_row(r, out),
        }
    }

    /// `out[t] = W x[t]`, out `[tokens, rows]`, the activations in `form`.
    pub(crate) fn multiply(
        &self,
        team: &Team,
        input: &mut Activations,
        form: ActivationForm,
        out: &mut [f32],
    ) -> Result<(), MatmulError> {
        match &self.storage {
            Storage::Trits(trits) => matmul_trits(team, input, &mut [(trits, out)]),
            Storage::Ints(ints) => matmul_int_tiles(team, input, form, &mut [(ints, out)]),
            Storage::Rows(_) => kernels::matmul::matmul(team, &self.view()?, input, form, out),
        }
    }

    /// Puts the rows into tiles if the processor has kernels for them, and lets go of the rows.
    fn pack(&mut self, family: Family, threads: usize, arena: &mut Arena) {
        if self.rows < MIN_PACKED_ROWS {
            return;
        }
        let Storage::Rows(bytes) = &self.storage else { return };
        let Ok(matrix) = self.view() else { return };
        let done = |read| bytes.release(read);
        let packed = match Trits::pack(&matrix, family, threads, arena, &done) {
            Some(trits) => Some(Storage::Trits(trits)),
            None => IntTiles::pack(&matrix, threads, arena, &done).map(Storage::Ints),
        };
        if let Some(packed) = packed {
            if matches!(packed, Storage::Trits(_)) {
                // Whatever the file calls them: their input is rounded by the token.
                self.row_type = RowType::Ternary32;
            }
            bytes.release(0..usize::MAX);
            self.storage = packed;
        }
    }

    /// Bytes that it would take in tiles, if it is not in tiles and there are any for it.
    fn packed_bytes(&self) -> Option<usize> {
        let rows = matches!(self.storage, Storage::Rows(_)) && self.rows >= MIN_PACKED_ROWS;
        let bytes = self.view().ok().and_then(|matrix| Trits::bytes_for(&matrix));
        bytes.or_else(|| IntTiles::bytes_for(self.row_type, self.rows, self.cols)).filter(|_| rows)
    }

    /// Bytes that a scan of it as the classifier would take.
    fn scan_bytes(&self) -> Option<usize> {
        Scan::bytes_for(self.rows, self.cols).filter(|_| Scan::pays(self.row_type, self.rows))
    }

    /// The first row that holds NaN or infinity.
    pub(crate) fn find_not_finite(&self) -> Option<usize> {
        match &self.storage {
            Storage::Trits(trits) => return trits.scales().iter().position(|scale| !scale.is_finite()),
            Storage::Ints(ints) => return ints.find_not_finite(),
            Storage::Rows(_) => {}
        }
        let view = self.view().ok()?;
        let mut row = vec![0.0; self.cols];
        (0..self.rows)
            .find(|&r| view.dequantize_row(r, &mut row).is_ok() && row.iter().any(|x| !x.is_finite()))
    }
}

/// A linear layer: `y = W x + b`.
#[derive(Debug)]
pub struct Linear {
    /// W.
    pub weight: WeightMatrix,
    /// b, `[rows]`.
    pub bias: Option<Vec<f32>>,
}

/// How the inputs of quantized matrices are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationMode {
    /// int8 for quantized rows, f32 for floating-point rows.
    #[default]
    Int8,
    /// f32 for all rows. The truth; a model whose definition rounds its activations (BitNet) still does.
    F32,
}

impl ActivationMode {
    /// The form in which a matrix takes its input. `int8_linear`: the model's own definition rounds the
    /// inputs of this matrix by the token.
    pub(crate) fn form(self, row_type: RowType, int8_linear: bool) -> ActivationForm {
        match (self, Matrix::integer_form(row_type)) {
            (Self::F32, _) | (_, ActivationForm::F32) => ActivationForm::F32,
            (Self::Int8, _) if int8_linear => ActivationForm::Int8Token,
            (Self::Int8, form) => form,
        }
    }
}

/// Layers with the same input and where their outputs go, `[tokens, rows]` each.
pub(crate) type Outputs<'a> = SmallVec<[(&'a Linear, &'a mut [f32]); 3]>;

impl Linear {
    /// `out[t] = W x[t] + b` of layers with the same input, in one job of the team where their layouts agree. With
    /// `int8_linear` the caller has made the f32 form of `input` what its rounding stands for
    /// ([`Activations::round_to_int8_token`]) where it is used.
    pub(crate) fn apply(
        mut outputs: Outputs<'_>,
        team: &Team,
        input: &mut Activations,
        mode: ActivationMode,
        int8_linear: bool,
    ) -> Result<(), MatmulError> {
        let form = |linear: &Linear| mode.form(linear.weight.row_type, int8_linear);
        let Some(first) = outputs.first().map(|(linear, _)| form(linear)) else { return Ok(()) };
        let layouts = || outputs.iter().map(|(linear, _)| &linear.weight.storage);
        if layouts().all(|storage| matches!(storage, Storage::Trits(_))) {
            let mut products: SmallVec<[_; 3]> = outputs
                .iter_mut()
                .filter_map(|(linear, out)| match &linear.weight.storage {
                    Storage::Trits(trits) => Some((trits, &mut **out)),
                    _ => None,
                })
                .collect();
            matmul_trits(team, input, &mut products)?;
        } else if layouts().all(|storage| matches!(storage, Storage::Ints(_)))
            && outputs.iter().all(|(linear, _)| form(linear) == first)
        {
            let mut products: SmallVec<[_; 3]> = outputs
                .iter_mut()
                .filter_map(|(linear, out)| match &linear.weight.storage {
                    Storage::Ints(ints) => Some((ints, &mut **out)),
                    _ => None,
                })
                .collect();
            matmul_int_tiles(team, input, first, &mut products)?;
        } else {
            for (linear, out) in &mut outputs {
                linear.weight.multiply(team, input, form(linear), out)?;
            }
        }
        for (linear, out) in outputs {
            if let Some(bias) = &linear.bias {
                out.chunks_exact_mut(linear.weight.rows).for_each(|out| kernels::ops::add(out, bias));
            }
        }
        Ok(())
    }
}

/// One transformer block.
#[derive(Debug)]
pub struct Layer {
    /// Norm before the attention, `[dim]`.
    pub rms_att: Vec<f32>,
    /// Queries, `[n_heads * head_dim, dim]`.
    pub wq: Linear,
    /// Keys, `[n_kv_heads * head_dim, dim]`.
    pub wk: Linear,
    /// Values, `[n_kv_heads * head_dim, dim]`.
    pub wv: Linear,
    /// Output of the attention, `[dim, n_heads * head_dim]`.
    pub wo: Linear,
    /// Norm of each query head, `[head_dim]`.
    pub q_norm: Option<Vec<f32>>,
    /// Norm of each key head, `[head_dim]`.
    pub k_norm: Option<Vec<f32>>,
    /// Norm before wo, `[n_heads * head_dim]`.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// Norm after wo, `[dim]`.
    pub post_att_norm: Option<Vec<f32>>,
    /// Norm before the feed-forward, `[dim]`.
    pub rms_ffn: Vec<f32>,
    /// Gate, `[hidden_dim, dim]`.
    pub w1: Linear,
    /// Down, `[dim, hidden_dim]`.
    pub w2: Linear,
    /// Up, `[hidden_dim, dim]`.
    pub w3: Linear,
    /// Norm before w2, `[hidden_dim]`.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// Norm after w2, `[dim]`.
    pub post_ffn_norm: Option<Vec<f32>>,
}

impl Layer {
    /// The linear layers of the block, to be changed.
    pub(crate) fn linears_mut(&mut self) -> [&mut Linear; 7] {
        [&mut self.wq, &mut self.wk, &mut self.wv, &mut self.wo, &mut self.w1, &mut self.w2, &mut self.w3]
    }

    /// All matrices of the block.
    pub fn matrices(&self) -> impl Iterator<Item = &WeightMatrix> {
        self.linears().map(|linear| &linear.weight)
    }

    /// All linear layers of the block.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.wq, &self.wk, &self.wv, &self.wo, &self.w1, &self.w2, &self.w3].into_iter()
    }
}

/// All weights.
#[derive(Debug)]
pub struct Weights {
    /// `[vocab_size, dim]`
    pub token_embedding: WeightMatrix,
    /// The blocks in order.
    pub layers: Vec<Layer>,
    /// Norm before the classifier, `[dim]`.
    pub rms_final: Vec<f32>,
    /// Classifier `[vocab_size, dim]`; `None` when it is the embedding.
    pub wcls: Option<WeightMatrix>,
    /// What finds the best rows of a large classifier.
    pub(crate) scan: Option<Scan>,
}

impl Weights {
    /// The matrix that turns the last hidden state into logits.
    pub fn classifier(&self) -> &WeightMatrix {
        self.wcls.as_ref().unwrap_or(&self.token_embedding)
    }

    /// All matrices, the embedding first.
    pub fn matrices(&self) -> impl Iterator<Item = &WeightMatrix> {
        std::iter::once(&self.token_embedding)
            .chain(self.layers.iter().flat_map(Layer::matrices))
            .chain(self.wcls.as_ref())
    }

    /// Puts the linear layers into the layouts that the kernels are fastest with, one matrix at a time, so that little
    /// more than the model itself is in memory. With `scan` a large classifier is scanned ([`Scan`]).
    pub(crate) fn pack(&mut self, family: Family, threads: usize, scan: bool) {
        if family == Family::Reference {
            return;
        }
        let mut arena = Arena::default();
        // An embedding that is no classifier is read by the row. The classifier is the largest matrix: it comes first, while
        // there is nothing beside it.
        let classifier = self.wcls.as_mut().unwrap_or(&mut self.token_embedding);
        if scan && Scan::pays(classifier.row_type, classifier.rows) {
            self.scan = classifier.view().ok().and_then(|rows| Scan::new(&rows, threads, &mut arena));
        }
        match (&self.scan, &classifier.storage) {
            (Some(_), Storage::Rows(bytes)) => bytes.release(0..usize::MAX),
            _ => classifier.pack(family, threads, &mut arena),
        }
        for linear in self.layers.iter_mut().flat_map(Layer::linears_mut) {
            linear.weight.pack(family, threads, &mut arena);
        }
    }

    /// Bytes that are read in place from the mapped file, and bytes of all other memory. `foreseen`: as if it were packed,
    /// with a scan of the classifier or without.
    pub(crate) fn bytes(&self, foreseen: Option<bool>) -> (u64, u64) {
        let (mut mapped, mut repacked) = (0, self.scan.as_ref().map_or(0, Scan::byte_len));
        let classifier = self.classifier();
        for matrix in self.matrices() {
            let is_classifier = std::ptr::eq(matrix, classifier);
            let packs = is_classifier || !std::ptr::eq(matrix, &self.token_embedding);
            let scan = if foreseen == Some(true) && is_classifier { matrix.scan_bytes() } else { None };
            let packed = matrix.packed_bytes().filter(|_| foreseen.is_some() && packs && scan.is_none());
            match packed {
                Some(packed) => repacked += packed,
                None if matrix.is_owned() => repacked += matrix.byte_len(),
                None => mapped += matrix.byte_len(),
            }
            repacked += scan.unwrap_or(0);
        }
        (mapped as u64, repacked as u64)
    }

    /// The first matrix that holds NaN or infinity, with the row: what to name when logits are not finite.
    pub(crate) fn find_not_finite(&self) -> Option<(String, usize)> {
        self.matrices().find_map(|matrix| Some((matrix.name.clone(), matrix.find_not_finite()?)))
    }
}
