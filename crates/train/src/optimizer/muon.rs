//! Muon (Jordan et al., 2024): momentum, made orthogonal, as the step of a matrix.

use kernels::gemm::{Gemm, Output, Precision, Size, View};

/// The iteration of Newton and Schulz with Jordan's coefficients, five times: singular values come near 1.
const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.7750, 2.0315);
const ITERATIONS: usize = 5;

/// Room for one matrix's step.
#[derive(Debug, Default)]
pub struct Muon {
    gemm: Gemm,
    x: Vec<f32>,
    gram: Vec<f32>,
    polynomial: Vec<f32>,
    next: Vec<f32>,
}

/// A matrix and the shape in which it lies.
#[derive(Debug)]
pub struct MuonMatrix<'a> {
    /// `[rows, cols]`
    pub parameters: &'a mut [f32],
    /// Its momentum.
    pub momentum: &'a mut [f32],
    /// Its derivative.
    pub derivative: &'a [f32],
    /// Columns.
    pub cols: usize,
}

impl Muon {
    /// Whose iteration multiplies in `precision`.
    pub fn new(precision: Precision) -> Self {
        Self { gemm: Gemm::new(precision), ..Self::default() }
    }

    /// `momentum = beta momentum + d`, and the parameters change by `learning_rate` times the orthogonal matrix nearest to
    /// `d + beta momentum`, scaled so that its elements are as large as AdamW's usually are (0.2 on average: Liu et al.,
    /// arXiv 2502.16982), after decaying by `learning_rate * decay`.
    pub fn update(&mut self, matrix: MuonMatrix<'_>, beta: f32, learning_rate: f32, decay: f32) {
        let MuonMatrix { parameters, momentum, derivative, cols } = matrix;
        let rows = parameters.len() / cols.max(1);
        self.x.clear();
        for (m, &d) in momentum.iter_mut().zip(derivative) {
            *m = beta * *m + d;
            self.x.push(d + beta * *m);
        }
        self.orthogonalize(rows, cols);
        let step = learning_rate * 0.2 * (rows.max(cols) as f32).sqrt();
        let keep = 1.0 - learning_rate * decay;
        for (p, x) in parameters.iter_mut().zip(&self.x) {
            *p = *p * keep - step * x;
        }
    }

    /// `x`, `[rows, cols]`, becomes nearly orthogonal in its shorter direction.
    fn orthogonalize(&mut self, rows: usize, cols: usize) {
        let Self { gemm, x, gram, polynomial, next } = self;
        let norm = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let inverse = (1.0 / (norm + 1e-7)) as f32;
        x.iter_mut().for_each(|x| *x *= inverse);
        let wide = rows <= cols;
        let (short, long) = (rows.min(cols), rows.max(cols));
        gram.resize(short * short, 0.0);
        polynomial.resize(short * short, 0.0);
        next.resize(x.len(), 0.0);
        let (a, b, c) = COEFFICIENTS;
        for _ in 0..ITERATIONS {
            // In terms of the wide matrix X: A = X X^T, P = b A + c A^2, X = a X + P X. A tall one is its transpose.
            let view = View::rows(x, cols);
            let wide_x = if wide { view } else { view.transposed() };
            let square = Size { m: short, n: short, k: long };
            gemm.multiply(square, wide_x, wide_x.transposed(), Output::Write, gram, short);
            let gram_view = View::rows(gram, short);
            let square = Size { m: short, n: short, k: short };
            gemm.multiply(square, gram_view, gram_view, Output::Write, polynomial, short);
            for (p, &g) in polynomial.iter_mut().zip(&*gram) {
                *p = b * g + c * *p;
            }
            let polynomial = View::rows(polynomial, short);
            match wide {
                true => {
                    let size = Size { m: rows, n: cols, k: short };
                    gemm.multiply(size, polynomial, view, Output::Write, next, cols);
                }
                // (P X)^T = X^T P: P is symmetric.
                false => {
                    let size = Size { m: rows, n: cols, k: short };
                    gemm.multiply(size, view, polynomial, Output::Write, next, cols);
                }
            }
            for (x, &n) in x.iter_mut().zip(&*next) {
                *x = a * *x + n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jordan's coefficients bring every singular value into 0.68..1.13 or so; here by the Gram matrix of either side.
    #[test]
    fn steps_are_nearly_orthogonal() {
        for (rows, cols) in [(6, 20), (20, 6), (9, 9)] {
            let d: Vec<f32> = (0..rows * cols).map(|i| ((i * i + 3 * i) as f32 * 0.37).sin()).collect();
            let mut muon = Muon { x: d.clone(), ..Muon::default() };
            muon.orthogonalize(rows, cols);
            let at = |i: usize, j: usize| f64::from(muon.x[i * cols + j]);
            let (short, long) = (rows.min(cols), rows.max(cols));
            let element = |s: usize, l: usize| if rows <= cols { at(s, l) } else { at(l, s) };
            for i in 0..short {
                for j in 0..short {
                    let dot: f64 = (0..long).map(|l| element(i, l) * element(j, l)).sum();
                    if i == j {
                        assert!((0.4..1.4).contains(&dot), "{rows} x {cols}: |row|^2 = {dot}");
                    } else {
                        assert!(dot.abs() < 0.35, "{rows} x {cols}: rows {i} and {j}: {dot}");
                    }
                }
            }
            // It points where the derivative does.
            let along: f32 = muon.x.iter().zip(&d).map(|(x, d)| x * d).sum();
            assert!(along > 0.0);
        }
    }

    #[test]
    fn momentum_and_decay_are_those_of_the_definition() {
        let (mut p, mut m) = (vec![1.0f32, -2.0, 0.5, 3.0], vec![0.0; 4]);
        let d = [0.1, 0.2, -0.3, 0.4];
        let mut muon = Muon::default();
        let mut muon_step = |p: &mut [f32], m: &mut [f32], rate| {
            let matrix = MuonMatrix { parameters: p, momentum: m, derivative: &d, cols: 2 };
            muon.update(matrix, 0.9, rate, 0.1);
        };
        muon_step(&mut p, &mut m, 0.0);
        assert_eq!(p, [1.0, -2.0, 0.5, 3.0], "a learning rate of 0 changes nothing");
        assert_eq!(m, d);
        muon_step(&mut p, &mut m, 0.01);
        for (m, d) in m.iter().zip(d) {
            assert!((m - 1.9 * d).abs() < 1e-6);
        }
        assert!(p.iter().zip([1.0, -2.0, 0.5, 3.0]).all(|(p, q): (&f32, f32)| (p - q).abs() < 0.01));
    }
}
