//! The transform of 3 × 3 kernels to the frequencies of [`winograd`](super::winograd).

/// Kernel transform G, 6 × 3.
const G: [[f32; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Three of the 9 kernel positions, each with its factor in a frequency.
pub(super) type Terms = [(usize, f32); 3];

/// The terms of a frequency: (G g Gᵀ) at (f / 6, f % 6), without triples whose factors are all 0.
pub(super) fn kernel_terms(frequency: usize) -> impl Iterator<Item = Terms> {
    let (rows, columns) = (G[frequency / 6], G[frequency % 6]);
    let along_rows = columns.iter().all(|factor| *factor != 0.0);
    let term = move |i: usize, j: usize| {
        let (y, x) = if along_rows { (i, j) } else { (j, i) };
        (y * 3 + x, rows[y] * columns[x])
    };
    let triples = (0..3).map(move |i| std::array::from_fn(|j| term(i, j)));
    triples.filter(|terms: &Terms| terms.iter().any(|(_, factor)| *factor != 0.0))
}
