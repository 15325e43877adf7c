//! Products of bytes, written once for the instruction sets of ARM that differ in one instruction.

/// Defines `gemm_int8_block` and `gemm_ternary` of one instruction set. `$add_dots(sums, w, x)` adds the 16
/// products of two vectors of bytes, four by four, to the lanes of `sums`; it is inlined where its features are
/// among `$features`.
///
/// A macro and not a generic function: a method of a trait cannot carry `#[target_feature]`, and without it
/// nothing that does is inlined into it.
macro_rules! integer_kernels {
    ($features:literal, $add_dots:path) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn load_i8(x: &[i8; 16]) -> int8x16_t {
            // SAFETY: the reference covers the 16 bytes that are read.
            unsafe { vld1q_s8(x.as_ptr()) }
        }

        /// A row of whole blocks of 32, in halves.
        #[inline]
        fn halves(x: &[i8]) -> &[[[i8; 16]; 2]] {
            x.as_chunks::<16>().0.as_chunks::<2>().0
        }

        /// One row against `T` tokens, both with scales: each half block's sum is multiplied with the row's scale
        /// of the half and the token's of the block.
        #[inline]
        #[target_feature(enable = $features)]
        fn tile_int8_block<const T: usize>(
            row: &BlockRow<'_>,
            xs: [&[i8]; T],
            scales: [&[f32]; T],
        ) -> [f32; T] {
            let w32 = halves(row.q);
            let scale16 = &row.scale16.as_chunks::<2>().0[..w32.len()];
            let x32 = xs.map(|x| &halves(x)[..w32.len()]);
            let scales = scales.map(|s| &s[..w32.len()]);
            let zero = vdupq_n_s32(0);
            let mut sums = [[vdupq_n_f32(0.0); 2]; T];
            for b in 0..w32.len() {
                let w = [load_i8(&w32[b][0]), load_i8(&w32[b][1])];
                for t in 0..T {
                    for half in 0..2 {
                        let dots = $add_dots(zero, w[half], load_i8(&x32[t][b][half]));
                        let scale = scale16[b][half] * scales[t][b];
                        sums[t][half] = vfmaq_n_f32(sums[t][half], vcvtq_f32_s32(dots), scale);
                    }
                }
            }
            let mut out = [0.0; T];
            for t in 0..T {
                out[t] = vaddvq_f32(vaddq_f32(sums[t][0], sums[t][1]));
            }
            out
        }

        #[target_feature(enable = $features)]
        fn gemm_int8_block(row: &BlockRow<'_>, input: &BlockInput<'_>, out: &mut [f32]) {
            let cols = row.q.len();
            let blocks = cols / 32;
            let x = |t: usize| &input.q[t * cols..][..cols];
            let s = |t: usize| &input.scale[t * blocks..][..blocks];
            let (fours, rest) = out.as_chunks_mut::<4>();
            let first_rest = fours.len() * 4;
            for (i, out) in fours.iter_mut().enumerate() {
                let t = [i * 4, i * 4 + 1, i * 4 + 2, i * 4 + 3];
                *out = tile_int8_block(row, t.map(x), t.map(s));
            }
            for (i, out) in rest.iter_mut().enumerate() {
                let t = [first_rest + i];
                [*out] = tile_int8_block(row, t.map(x), t.map(s));
            }
            if !row.offset.is_empty() {
                let groups = row.offset.len();
                for (t, out) in out.iter_mut().enumerate() {
                    *out += dot_f32(row.offset, &input.sums[t * groups..][..groups]);
                }
            }
        }

        /// One ternary row against `T` tokens, in integers.
        #[inline]
        #[target_feature(enable = $features)]
        fn tile_ternary<const T: usize>(row: &[i8], xs: [&[i8]; T]) -> [i32; T] {
            let w32 = halves(row);
            let x32 = xs.map(|x| &halves(x)[..w32.len()]);
            let mut sums = [[vdupq_n_s32(0); 2]; T];
            for b in 0..w32.len() {
                let w = [load_i8(&w32[b][0]), load_i8(&w32[b][1])];
                for t in 0..T {
                    for half in 0..2 {
                        sums[t][half] = $add_dots(sums[t][half], w[half], load_i8(&x32[t][b][half]));
                    }
                }
            }
            let (mut out, done) = ([0; T], w32.len() * 32);
            for t in 0..T {
                let tail = scalar::dot_i8(&row[done..], &xs[t][done..]);
                out[t] = vaddvq_s32(vaddq_s32(sums[t][0], sums[t][1])) + tail;
            }
            out
        }

        #[target_feature(enable = $features)]
        fn gemm_ternary(row: &[i8], xs: &[i8], out: &mut [i32]) {
            let cols = row.len();
            let x = |t: usize| &xs[t * cols..][..cols];
            let (fours, rest) = out.as_chunks_mut::<4>();
            let first_rest = fours.len() * 4;
            for (i, out) in fours.iter_mut().enumerate() {
                *out = tile_ternary(row, [i * 4, i * 4 + 1, i * 4 + 2, i * 4 + 3].map(x));
            }
            for (i, out) in rest.iter_mut().enumerate() {
                [*out] = tile_ternary(row, [x(first_rest + i)]);
            }
        }
    };
}
pub(super) use integer_kernels;
