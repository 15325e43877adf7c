//! A run that was killed goes on where it stopped, and the file is the same.

use quantize::quantize::{Format, Options, quantize};

use crate::helpers::{Folder, ours};

#[test]
fn a_run_that_was_killed_goes_on() {
    let (folder, model) = (Folder::new(), ours("llama3-scaled-tiny"));
    let options = Options::new(Format::Int8);
    let whole = folder.path("whole.gguf");
    quantize(&model, &whole, &options, &mut |_, _, _| {}).unwrap();

    // Killed: the journal of a run that stops while it works is left as it is.
    let output = folder.path("resumed.gguf");
    let journal = folder.path(".resumed.gguf.quantize");
    let mut kept = Vec::new();
    quantize(&model, &output, &options, &mut |_, done, _| {
        if done == 5 {
            kept = std::fs::read(&journal).unwrap();
        }
    })
    .unwrap();
    std::fs::remove_file(&output).unwrap();
    // The last record is cut off.
    kept.truncate(kept.len() - 3);
    std::fs::write(&journal, &kept).unwrap();
    let summary = quantize(&model, &output, &options, &mut |_, _, _| {}).unwrap();
    assert_eq!(summary.resumed, 4);
    assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&whole).unwrap());

    // Of other options nothing is taken over.
    std::fs::write(&journal, &kept).unwrap();
    let other = Options { head: Some(kernels::RowType::F16), ..options };
    assert_eq!(quantize(&model, &output, &other, &mut |_, _, _| {}).unwrap().resumed, 0);
    assert_eq!(folder.files().len(), 2, "{:?}", folder.files());
}
