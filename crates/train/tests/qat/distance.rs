//! What tells a student and its teacher apart, and its derivatives.

use train::finetune::Planes;
use train::model::{Batch, Kind, Layout, Lesson, Network, Shape, Wanted};

use super::{noise, random, shape};

fn batch() -> Batch {
    let n = 36;
    Batch {
        seq_len: 12,
        inputs: (0..n).map(|i| (i * 17 % 40) as u32).collect(),
        targets: (0..n).map(|i| (i * 23 % 40) as u32).collect(),
        weights: (0..n).map(|i| [1.0, 0.0, 0.5][i % 3]).collect(),
        starts: (0..n).map(|i| if i % 12 < 5 { 0 } else { 5 }).collect(),
    }
}

/// A model is no distance from itself; what tells another one apart has the derivatives of finite differences, also where
/// layers are computed anew and the tokens are shared among threads.
#[test]
fn the_distance_from_a_teacher_has_the_derivatives_of_finite_differences() {
    let shape = Shape { dim: 16, hidden_dim: 24, vocab_size: 40, ..shape() };
    let layout = Layout::new(&shape);
    let (teacher, values, batch) = (random(&layout, 12.9898), random(&layout, 78.233), batch());
    for (threads, recompute, embedding) in [(1, false, true), (2, true, false)] {
        let lesson =
            |share| Lesson { teacher: (&teacher).into(), planes: Planes::One, share, hidden: 0.7, embedding };
        let mut network = Network::new(shape.clone(), threads, recompute);
        let own = network.distill(&teacher, &lesson(0.0), &batch, None);
        let loss = network.run(&teacher, None, &batch, Wanted::Loss);
        assert!(own.kl.abs() < 1e-5 && own.hidden == 0.0 && (own.nll - loss).abs() < 1e-5, "{own:?}");
        let rounded = network.distill(&teacher, &lesson(1.0), &batch, None);
        assert!(rounded.kl > 0.01 && rounded.hidden > 0.01, "{rounded:?}");

        let mut d = vec![f32::NAN; values.len()];
        let apart = network.distill(&values, &lesson(0.0), &batch, Some(&mut d));
        assert!(apart.kl > 0.1 && apart.hidden > 0.1, "{apart:?}");
        for tensor in &layout.tensors {
            let d = &d[tensor.range.clone()];
            if matches!(tensor.kind, Kind::Embedding | Kind::Head) && !embedding {
                assert!(d.iter().all(|d| *d == 0.0), "{}", tensor.name);
                continue;
            }
            let direction: Vec<f32> = (0..d.len()).map(|i| noise(i + 7, 39.425)).collect();
            let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            let length = norm(&direction);
            let expected: f64 = d.iter().zip(&direction).map(|(d, v)| f64::from(*d) * f64::from(*v)).sum();
            let step = 0.02 / length;
            let mut at = |by: f64| {
                let mut moved = values.clone();
                let part = moved[tensor.range.clone()].iter_mut();
                part.zip(&direction).for_each(|(w, v)| *w += (by * f64::from(*v)) as f32);
                network.distill(&moved, &lesson(0.0), &batch, None).loss(&lesson(0.0))
            };
            let found = (at(step) - at(-step)) / (2.0 * step);
            let error = (found - expected).abs() / (norm(d) * length);
            println!("{}: {found} for {expected}, {error:e} of |d| |v|", tensor.name);
            assert!(error < 2e-4, "{}: {found} for {expected}", tensor.name);
        }
    }
}
