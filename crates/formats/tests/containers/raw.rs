//! Files put together byte by byte, without the writer under test.

/// A GGUF file in the making: the fields as they are pushed.
#[derive(Clone, Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    /// Magic, version and the two counts.
    pub(crate) fn header(version: u32, n_tensors: u64, n_entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(n_tensors).u64(n_entries)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn u32(self, v: u32) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    pub(crate) fn u64(self, v: u64) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    pub(crate) fn string(self, s: &str) -> Self {
        self.u64(s.len() as u64).bytes(s.as_bytes())
    }

    /// Key and type of a metadata entry; the value follows.
    pub(crate) fn entry(self, key: &str, ty: u32) -> Self {
        self.string(key).u32(ty)
    }

    /// A tensor's description; `dims` innermost first.
    pub(crate) fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        let raw = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(raw, |raw, &d| raw.u64(d)).u32(ty).u64(offset)
    }

    /// Zeros up to a multiple of 32.
    pub(crate) fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32), 0);
        self
    }

    /// `n` bytes of tensor data.
    pub(crate) fn data(mut self, n: usize) -> Self {
        self.0.extend((0..n).map(|i| i as u8));
        self
    }
}

/// A small valid GGUF file with every value type, nested arrays, and tensors of four types.
pub(crate) fn gguf() -> Vec<u8> {
    let raw = Raw::header(3, 4, 15)
        .entry("general.architecture", 8)
        .string("llama")
        .entry("u8", 0)
        .bytes(&[200])
        .entry("i8", 1)
        .bytes(&[200])
        .entry("u16", 2)
        .bytes(&[1, 2])
        .entry("i16", 3)
        .bytes(&[1, 255])
        .entry("u32", 4)
        .u32(7)
        .entry("i32", 5)
        .u32(u32::MAX)
        .entry("f32", 6)
        .u32(1.5f32.to_bits())
        .entry("bool", 7)
        .bytes(&[1])
        .entry("u64", 10)
        .u64(1 << 40)
        .entry("i64", 11)
        .u64(u64::MAX)
        .entry("f64", 12)
        .u64(2.5f64.to_bits())
        .entry("tokens", 9)
        .u32(8)
        .u64(3)
        .string("a")
        .string("")
        .string("größe")
        .entry("scores", 9)
        .u32(6)
        .u64(2)
        .u32(0)
        .u32(1.0f32.to_bits())
        .entry("nested", 9)
        .u32(9)
        .u64(2)
        .u32(7)
        .u64(2)
        .bytes(&[0, 1])
        .u32(5)
        .u64(0);
    raw.tensor("a", &[3, 2], 0, 0)
        .tensor("b", &[64], 8, 32)
        .tensor("c", &[256, 1], 35, 128)
        .tensor("d", &[4, 2], 36, 224)
        .pad()
        .data(32 + 96 + 96 + 34)
        .0
}

/// A safetensors file with this header and so many bytes of data.
pub(crate) fn safetensors(header: &str, data: usize) -> Vec<u8> {
    Raw::default().string(header).data(data).0
}

/// A small valid safetensors file.
pub(crate) fn small_safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"b":{"dtype":"F16","shape":[2,2],"data_offsets":[24,32]},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    safetensors(header, 32)
}

/// A generator of numbers that is the same on every run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
