//! The weights of a model, each matrix in the row type that the kernels read.

use kernels::row::RowType;
use kernels::{ActivationForm, Activations, MatmulError, Matrix, Team};

use crate::source::Bytes;

/// A weight matrix `[rows, cols]` = `[out, in]`.
#[derive(Debug, Clone)]
pub struct WeightMatrix {
    /// Its name in the file.
    pub name: String,
    /// Type of its rows in memory.
    pub row_type: RowType,
    /// Output dimension.
    pub rows: usize,
    /// Input dimension.
    pub cols: usize,
    pub(crate) bytes: Bytes,
}

impl WeightMatrix {
    /// The matrix as the kernels take it; refused when the bytes are not those of the shape.
    pub fn view(&self) -> Result<Matrix<'_>, MatmulError> {
        Matrix::new(self.row_type, self.rows, self.cols, self.bytes.as_slice())
    }

    /// Whether it was repacked into memory of its own; otherwise it is read in place from the mapped file.
    pub fn is_owned(&self) -> bool {
        matches!(self.bytes, Bytes::Owned(_))
    }

    /// Bytes in memory.
    pub fn byte_len(&self) -> usize {
        self.bytes.as_slice().len()
    }
}

/// A linear layer: `y = W x + b`.
#[derive(Debug, Clone)]
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

impl Linear {
    /// `out[t] = W x[t] + b`, out `[tokens, rows]`. With `int8_linear` the caller has made the f32 form of
    /// `input` what its rounding stands for ([`Activations::round_to_int8_token`]) where it is used.
    pub(crate) fn apply(
        &self,
        team: &Team,
        input: &mut Activations,
        mode: ActivationMode,
        int8_linear: bool,
        out: &mut [f32],
    ) -> Result<(), MatmulError> {
        let form = mode.form(self.weight.row_type, int8_linear);
        kernels::matmul::matmul(team, &self.weight.view()?, input, form, out)?;
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(self.weight.rows).for_each(|out| kernels::ops::add(out, bias));
        }
        Ok(())
    }
}

/// One transformer block.
#[derive(Debug, Clone)]
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
    /// All matrices of the block.
    pub fn matrices(&self) -> impl Iterator<Item = &WeightMatrix> {
        self.linears().map(|linear| &linear.weight)
    }

    /// All linear layers of the block.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        [&self.wq, &self.wk, &self.wv, &self.wo, &self.w1, &self.w2, &self.w3].into_iter()
    }

    /// The same, to be changed.
    pub(crate) fn linears_mut(&mut self) -> [&mut Linear; 7] {
        [&mut self.wq, &mut self.wk, &mut self.wv, &mut self.wo, &mut self.w1, &mut self.w2, &mut self.w3]
    }
}

/// All weights.
#[derive(Debug, Clone)]
pub struct Weights {
    /// `[vocab_size, dim]`
    pub token_embedding: WeightMatrix,
    /// The blocks in order.
    pub layers: Vec<Layer>,
    /// Norm before the classifier, `[dim]`.
    pub rms_final: Vec<f32>,
    /// Classifier `[vocab_size, dim]`; `None` when it is the embedding.
    pub wcls: Option<WeightMatrix>,
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

    /// The first matrix that holds NaN or infinity, with the row: what to name when logits are not finite.
    pub(crate) fn find_not_finite(&self) -> Option<(String, usize)> {
        self.matrices().find_map(|matrix| {
            let view = matrix.view().ok()?;
            let mut row = vec![0.0; matrix.cols];
            (0..matrix.rows)
                .find(|&r| view.dequantize_row(r, &mut row).is_ok() && row.iter().any(|x| !x.is_finite()))
                .map(|r| (matrix.name.clone(), r))
        })
    }
}
