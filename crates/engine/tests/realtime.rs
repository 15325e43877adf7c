//! Steady timing on request changes no number, and what the system refuses is named.
#![cfg(test)]

use std::path::Path;

use engine::{LoadOptions, Model, Sequence};

#[test]
fn realtime_changes_no_logits_and_names_what_was_refused() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/models/qwen3-tiny");
    let run = |threads: usize, realtime: bool| {
        let options = LoadOptions { threads: Some(threads), realtime, ..LoadOptions::default() };
        let model = Model::load(&path, &options).unwrap();
        let mut sequence = Sequence::new(&model, 30).unwrap();
        assert_eq!(sequence.position(), 0);
        let refused = sequence.refused().to_vec();
        (sequence.forward(&[1, 2, 3]).unwrap().to_vec(), refused)
    };
    let (expected, refused) = run(1, false);
    assert!(refused.is_empty());
    let (logits, refused) = run(1, true);
    assert_eq!(logits, expected);
    // A container may forbid either; a thread of its own for each core is asked for only once.
    assert!(
        refused.len() <= 2
            && refused.iter().all(|why| why.contains("not bound") || why.contains("not locked"))
    );
    // More threads than any machine has cores.
    let (logits, refused) = run(300, true);
    assert_eq!(logits, expected);
    assert!(refused[0].contains("300 threads do not fit"), "{refused:?}");
}
