//! NumPy's file format, version 1.0, as far as one matrix of f32 needs it.

/// The bytes before the values of a row-major `[rows, cols]` matrix in little-endian f32.
///
/// Layout: `\x93NUMPY`, version 1.0, u16 length, a Python dictionary padded with spaces and a newline so that
/// the values begin at a multiple of 64 (numpy/lib/format.py).
pub(super) fn header(rows: usize, cols: usize) -> Vec<u8> {
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let before = 10;
    while !(before + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `numpy.save` writes for an array of this shape.
    #[test]
    fn equals_numpy() {
        let mut expected =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (3, 512), }"
                .to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        assert_eq!(header(3, 512), expected);
        for (rows, cols) in [(1, 1), (2048, 128_256), (usize::MAX, usize::MAX)] {
            assert_eq!(header(rows, cols).len() % 64, 0);
        }
    }
}
