//! Many bytes at a time: the few operations that unpacking needs, on arrays of u64, eight weights each.
//!
//! Loops over single bytes are at the mercy of what the compiler recognizes; these are quick as they stand, and
//! four u64s side by side become one AVX2 register where the caller is compiled for it.

use std::array::from_fn;

/// `8 N` bytes, in the order of memory.
#[derive(Clone, Copy)]
pub(super) struct Lanes<const N: usize>(pub(super) [u64; N]);

/// `byte` in eight lanes.
const fn splat(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
}

impl<const N: usize> Lanes<N> {
    /// The first `8 N` of `bytes`; missing ones are 0.
    #[inline(always)]
    pub(super) fn load(bytes: &[u8]) -> Self {
        let mut lanes = [0; N];
        for (lanes, &bytes) in lanes.iter_mut().zip(bytes.as_chunks().0) {
            *lanes = u64::from_le_bytes(bytes);
        }
        Self(lanes)
    }

    /// The field of `BITS` bits from bit `shift` of each byte.
    #[inline(always)]
    pub(super) fn field<const BITS: u32>(self, shift: usize) -> Self {
        let mut lanes = self.0;
        for lanes in &mut lanes {
            *lanes = *lanes >> shift & splat((1 << BITS) - 1);
        }
        Self(lanes)
    }

    /// Puts the low bits of each byte of `high` above the `SHIFT` low bits of this one's.
    #[inline(always)]
    pub(super) fn with_high<const SHIFT: u32>(self, high: Self) -> Self {
        let mut lanes = self.0;
        for (lanes, high) in lanes.iter_mut().zip(high.0) {
            *lanes |= high << SHIFT;
        }
        Self(lanes)
    }

    /// Replaces each byte, 0..=15, by its value in the table: for each bit, the halves of the table that it
    /// chooses between, until one value is left.
    #[inline(always)]
    pub(super) fn look_up(self, table: &[i8; 16]) -> Self {
        let mut values = [[0; N]; 16];
        for (values, &value) in values.iter_mut().zip(table) {
            *values = [splat(value as u8); N];
        }
        for bit in 0..4 {
            let chosen = self.field::<1>(bit).0;
            for i in 0..8 >> bit {
                for (n, &chosen) in chosen.iter().enumerate() {
                    let (clear, set) = (values[2 * i][n], values[2 * i + 1][n]);
                    values[i][n] = clear ^ (clear ^ set) & ((chosen << 8).wrapping_sub(chosen));
                }
            }
        }
        Self(values[0])
    }

    /// Stores each byte minus `K`; both are at most 127, unless `K` is 0 and the bytes are stored as they are.
    #[inline(always)]
    pub(super) fn store_minus<const K: u8>(self, q: &mut [i8]) {
        for (lanes, q) in self.0.into_iter().zip(q.as_chunks_mut::<8>().0) {
            // byte + 128 - K needs no borrow from its neighbour, and flipping the top bit takes 128 away.
            let lanes = if K == 0 { lanes } else { (lanes + splat(128 - K)) ^ splat(128) };
            *q = lanes.to_le_bytes().map(|byte| byte as i8);
        }
    }
}

impl Lanes<2> {
    /// The low two bits of each byte minus 1, modulo 4, packed four to a byte, first in the lowest bits.
    #[inline(always)]
    pub(super) fn pack_minus_one(self) -> [u8; 4] {
        let [a, b] = self.0.map(|lanes| {
            let one = (lanes + splat(3)) & splat(3);
            let two = (one | one >> 6) & 0x000f_000f_000f_000f;
            let four = (two | two >> 12) & 0x0000_00ff_0000_00ff;
            ((four | four >> 24) as u16).to_le_bytes()
        });
        [a[0], a[1], b[0], b[1]]
    }
}

impl Lanes<4> {
    /// Bit `i` of the 32 bits as 0 or 1 in byte `i`.
    #[inline(always)]
    pub(super) fn from_bits(bits: [u8; 4]) -> Self {
        let mut lanes = [0; 4];
        for (lanes, bits) in lanes.iter_mut().zip(bits) {
            // Byte i keeps bit i, and the sum carries it, if set, to the byte's top.
            let one = (splat(1) * u64::from(bits)) & 0x8040_2010_0804_0201;
            *lanes = ((one + splat(127)) & splat(128)) >> 7;
        }
        Self(lanes)
    }

    /// Low nibbles of 16 bytes, then their high nibbles.
    #[inline(always)]
    pub(super) fn nibble_halves(bytes: &[u8; 16]) -> Self {
        let bytes = Lanes::<2>::load(bytes);
        let ([a, b], [c, d]) = (bytes.field::<4>(0).0, bytes.field::<4>(4).0);
        Self([a, b, c, d])
    }

    /// Nibbles of 16 bytes, each byte's low one before its high one.
    #[inline(always)]
    pub(super) fn nibble_pairs(bytes: &[u8; 16]) -> Self {
        let mut lanes = [0; 4];
        for (lanes, &bytes) in lanes.iter_mut().zip(bytes.as_chunks().0) {
            let four = u64::from(u32::from_le_bytes(bytes));
            let two = (four | four << 16) & 0x0000_ffff_0000_ffff;
            let one = (two | two << 8) & 0x00ff_00ff_00ff_00ff;
            *lanes = (one | one << 4) & splat(15);
        }
        Self(lanes)
    }
}

/// 128 weights of 2 bits: byte `l` at shift `2 j` holds weight `32 j + l`.
#[inline(always)]
pub(super) fn two_bits(qs: &[u8; 32]) -> [Lanes<4>; 4] {
    let qs = Lanes::load(qs);
    from_fn(|j| qs.field::<2>(2 * j))
}
