//! What is said about the bit order of a bitllama file when the weights do not tell it.

use formats::FormatError;
use formats::bitllama::{self, BitOrder};
use formats::checkpoint::Checkpoint;
use formats::detect::FileKind;
use formats::llama2c::Header;

use crate::real_files::data;
use crate::sample;

fn assert_untold(bytes: &[u8], what: &str) {
    match Checkpoint::parse(bytes) {
        Err(FormatError::Field { field, .. }) => assert_eq!(field, "bit order", "{what}"),
        other => panic!("{what}: {other:?}"),
    }
    for order in [BitOrder::LeastSignificantFirst, BitOrder::MostSignificantFirst] {
        assert_eq!(bitllama::parse(bytes, Some(order)).unwrap().kind, FileKind::Bitllama, "{what}");
    }
}

#[test]
fn untrained_weights_do_not_tell_it() {
    let header = Header { dim: 64, hidden_dim: 96, n_layers: 3, vocab_size: 20, ..sample::tiny(true) };
    for seed in 0..200 {
        let bytes = sample::file((FileKind::Bitllama, false), &header, &|_| false, false, seed);
        assert_untold(&bytes, &format!("seed {seed}"));
    }
}

/// A trained model whose bytes are in neither of the two orders is not taken for one of them.
#[test]
fn a_third_order_is_refused() {
    let Some(data) = data() else { return };
    let original = std::fs::read(data.join("bitllama/riscv_bin_model.bin")).unwrap();
    let tensors = Checkpoint::parse(&original).unwrap().tensors;
    for order in [[1, 0, 3, 2], [2, 3, 0, 1], [0, 2, 1, 3], [1, 2, 3, 0]] {
        let mut bytes = original.clone();
        for tensor in tensors.iter().filter(|tensor| tensor.name.contains(".w")) {
            for byte in &mut bytes[tensor.range(original.len() as u64).unwrap()][4..] {
                let codes = [0, 1, 2, 3].map(|place| *byte >> (2 * order[place]) & 3);
                *byte = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6;
            }
        }
        assert_untold(&bytes, &format!("{order:?}"));
    }
}
