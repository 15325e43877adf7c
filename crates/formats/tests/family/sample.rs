//! Small valid files of every format, filled with pseudo-random weights.

use formats::detect::FileKind;
use formats::llama2c::{self, Header, Version};
use formats::tmac_v2::{self, Variant};
use formats::writer::WriteError;
use formats::{Layout, TensorInfo, int4, tmac_v1};
use serde_json::json;

/// SplitMix64: enough for test data, the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// `weights` ternary codes, four a byte, the places behind the last one zero.
    fn codes(&mut self, weights: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + weights.div_ceil(4) as usize, 0);
        for i in 0..weights as usize {
            out[start + i / 4] |= [0b00, 0b01, 0b11][self.below(3)] << (2 * (i % 4));
        }
    }

    fn float(&mut self) -> [u8; 4] {
        (self.below(2001) as f32 / 1000.0 - 1.0).to_le_bytes()
    }

    /// Valid bytes for a tensor.
    fn fill(&mut self, info: &TensorInfo, out: &mut Vec<u8>) {
        let weights = info.rows() * info.cols();
        match info.layout {
            Layout::Rows(_) => (0..weights).for_each(|_| out.extend(self.float())),
            Layout::TernaryRun { .. } => self.codes(weights, out),
            Layout::TernaryRows => (0..info.rows()).for_each(|_| {
                out.extend([0x00, 0x3c]); // f16 1.0
                self.codes(info.cols(), out);
            }),
            Layout::TernaryScaled { .. } => {
                out.extend(self.float());
                self.codes(weights, out);
            }
            Layout::Int4Run { .. } => (0..weights.div_ceil(32)).for_each(|_| {
                out.extend([0x00, 0x3c]);
                (0..16).for_each(|_| out.push(self.next() as u8));
            }),
            Layout::Int8Groups { group } => {
                (0..weights).for_each(|_| out.push(self.next() as u8));
                (0..weights / group).for_each(|_| out.extend(self.float()));
            }
        }
    }
}

/// The formats of the family, the variants apart.
pub(crate) const KINDS: [(FileKind, bool); 8] = [
    (FileKind::Llama2cV0, false),
    (FileKind::Llama2cV1, false),
    (FileKind::Llama2cV2, false),
    (FileKind::TmacV1, false),
    (FileKind::TmacV2, false),
    (FileKind::TmacV2, true),
    (FileKind::Int4, false),
    (FileKind::Bitllama, false),
];

/// A header of which every format has a file; small, so that a flipped bit often hits something that matters.
pub(crate) fn tiny(shared_classifier: bool) -> Header {
    Header {
        dim: 8,
        hidden_dim: 12,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 10,
        seq_len: 4,
        shared_classifier,
    }
}

/// A valid file. `keep_f32` names the matrices that T-MAC v2 and Q4V1 leave in f32; with `trailer` the formats
/// that can have one get one.
pub(crate) fn file(
    (kind, bitnet): (FileKind, bool),
    header: &Header,
    keep_f32: &dyn Fn(&str) -> bool,
    trailer: bool,
    seed: u64,
) -> Vec<u8> {
    let mut random = Random(seed);
    let metadata = trailer.then(|| json!({"architecture": "llama", "norm_eps": 1e-5, "special_ids": [1, 2]}));
    let mut out = Vec::new();
    let mut data = |info: &TensorInfo, buffer: &mut Vec<u8>| -> Result<(), WriteError> {
        random.fill(info, buffer);
        Ok(())
    };
    let written = match kind {
        FileKind::Llama2cV0 => llama2c::write(&mut out, header, Version::V0, &mut data),
        FileKind::Llama2cV1 => llama2c::write(&mut out, header, Version::V1, &mut data),
        FileKind::Llama2cV2 => llama2c::write(&mut out, header, Version::V2 { group: 2 }, &mut data),
        FileKind::TmacV1 => tmac_v1::write(&mut out, header, metadata.as_ref(), &mut data),
        FileKind::TmacV2 => {
            let variant = if bitnet { Variant::BitNet } else { Variant::Llama };
            tmac_v2::write(&mut out, header, variant, keep_f32, metadata.as_ref(), &mut data)
        }
        FileKind::Int4 => int4::write(&mut out, header, keep_f32, metadata.as_ref(), &mut data),
        FileKind::Bitllama => {
            out = bitllama(header, &mut random);
            Ok(())
        }
        other => panic!("no sample of {other}"),
    };
    written.unwrap();
    out
}

/// A bitllama file, for which there is no writer, straight from its byte table.
fn bitllama(header: &Header, random: &mut Random) -> Vec<u8> {
    let Header { dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len, .. } = *header;
    let mut out = b"24ka\x01\0\0\0".to_vec();
    for field in [dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len] {
        out.extend((field as i32).to_le_bytes());
    }
    out.push(1);
    out.resize(256, 0);
    for _ in 0..dim + vocab_size * dim {
        out.extend(random.float());
    }
    let kv_dim = header.kv_dim();
    for weights in [
        dim * dim,
        kv_dim * dim,
        kv_dim * dim,
        dim * dim,
        hidden_dim * dim,
        dim * hidden_dim,
        hidden_dim * dim,
    ] {
        for _ in 0..n_layers {
            out.extend(random.float());
            random.codes(weights as u64, &mut out);
        }
    }
    out
}

/// A small `tokenizer.bin`: the three special tokens, all bytes, and some words.
pub(crate) fn tokenizer() -> Vec<u8> {
    let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["<unk>", "\n<s>\n", "\n</s>\n"].map(String::from).into_iter();
    let tokens: Vec<String> = words.chain(bytes).chain([" a", "b", "é", " ab"].map(String::from)).collect();
    let mut out = 6u32.to_le_bytes().to_vec();
    for (id, token) in tokens.iter().enumerate() {
        out.extend((-(id as f32)).to_le_bytes());
        out.extend((token.len() as u32).to_le_bytes());
        out.extend(token.as_bytes());
    }
    out
}
