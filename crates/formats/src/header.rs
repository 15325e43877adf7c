//! The seven i32 with which every file of the llama2.c family describes its model.

use crate::error::FormatError;
use crate::limits::{MAX_DIM, MAX_HEADS, MAX_LAYERS, MAX_SEQ_LEN, MAX_VOCAB};
use crate::reader::Reader;

/// Number of bytes of the seven fields.
pub(crate) const HEADER_BYTES: u64 = 28;

/// Names of the fields in file order, with the most that each may be.
const FIELDS: [(&str, u64); 7] = [
    ("dim", MAX_DIM),
    ("hidden_dim", MAX_DIM),
    ("n_layers", MAX_LAYERS),
    ("n_heads", MAX_HEADS),
    ("n_kv_heads", MAX_HEADS),
    ("vocab_size", MAX_VOCAB),
    ("seq_len", MAX_SEQ_LEN),
];

/// How a file says that the classifier is a tensor of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Classifier {
    /// By a negative vocab_size (llama2.c v0, T-MAC, Q4V1).
    Sign,
    /// By a byte elsewhere, already read (llama2.c v1 and v2, bitllama): vocab_size must be positive.
    Flag,
}

/// Shape of a model in the llama2.c family (`Config` of karpathy/llama2.c `run.c`). A value that came from a
/// parser has passed [`Header::check`]; writers check it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward layer.
    pub hidden_dim: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Number of query heads.
    pub n_heads: usize,
    /// Number of key and value heads.
    pub n_kv_heads: usize,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest context.
    pub seq_len: usize,
    /// Whether the output matrix is the token embedding (otherwise the file holds `wcls`).
    pub shared_classifier: bool,
}

impl Header {
    /// Width of one head: dim / n_heads.
    pub fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Width of the keys or values of one position: n_kv_heads * head_dim.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim()
    }

    /// Reads the seven fields at the reader's position and checks them. `shared_classifier` is what the sign
    /// says, or true where the sign says nothing and the caller fills it in.
    pub(crate) fn read(reader: &mut Reader<'_>, classifier: Classifier) -> Result<Self, FormatError> {
        let at = reader.offset();
        let mut fields = [0i64; 7];
        for (field, (name, _)) in fields.iter_mut().zip(FIELDS) {
            *field = i64::from(reader.i32(name)?);
        }
        let shared_classifier = fields[5] > 0;
        if classifier == Classifier::Sign {
            fields[5] = fields[5].abs();
        }
        checked(fields, shared_classifier, at)
    }

    /// Checks that every field is positive and within [`crate::limits`], that dim is a whole number of heads
    /// of even width (RoPE rotates pairs) and n_heads a whole number of n_kv_heads.
    pub fn check(&self) -> Result<(), FormatError> {
        let fields = self.fields().map(|field| i64::try_from(field).unwrap_or(i64::MAX));
        checked(fields, self.shared_classifier, 0).map(|_| ())
    }

    /// The seven fields as they stand in a file. Call [`Header::check`] first: a checked field fits an i32.
    pub(crate) fn to_bytes(self, classifier: Classifier) -> Vec<u8> {
        let negative = classifier == Classifier::Sign && !self.shared_classifier;
        let mut bytes = Vec::with_capacity(HEADER_BYTES as usize);
        for (i, field) in self.fields().into_iter().enumerate() {
            let value = field as i32;
            bytes.extend((if negative && i == 5 { -value } else { value }).to_le_bytes());
        }
        bytes
    }

    fn fields(&self) -> [usize; 7] {
        [
            self.dim,
            self.hidden_dim,
            self.n_layers,
            self.n_heads,
            self.n_kv_heads,
            self.vocab_size,
            self.seq_len,
        ]
    }
}

/// A header from fields of a file (`at` is the offset of the first), or what is wrong with them.
fn checked(fields: [i64; 7], shared_classifier: bool, at: u64) -> Result<Header, FormatError> {
    for (i, ((name, limit), value)) in FIELDS.into_iter().zip(fields).enumerate() {
        if value <= 0 {
            return Err(FormatError::field(
                name,
                at + 4 * i as u64,
                format!("must be positive, but is {value}"),
            ));
        }
        if value as u64 > limit {
            return Err(FormatError::Limit { field: name.to_owned(), value: value as u64, limit });
        }
    }
    let [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len] = fields.map(|v| v as usize);
    if !dim.is_multiple_of(n_heads) || !(dim / n_heads).is_multiple_of(2) {
        let problem = format!("{dim} is not {n_heads} heads of the same even width");
        return Err(FormatError::field("dim", at, problem));
    }
    if !n_heads.is_multiple_of(n_kv_heads) {
        let problem = format!("{n_kv_heads} does not divide the {n_heads} query heads");
        return Err(FormatError::field("n_kv_heads", at + 16, problem));
    }
    Ok(Header { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len, shared_classifier })
}
