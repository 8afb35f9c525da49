//! How a tensor of a network lies in a tensor of a file in another layout.

/// How a tensor lies in a file's tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The same elements in the same order.
    Whole,
    /// One of three equal parts of the rows: query, key, value.
    Third(usize),
    /// (in, out) instead of (out, in).
    Transposed,
    /// A matrix (out, in) as a 1×1 convolution (out, in, 1, 1). Read as [`Part::Whole`].
    Pointwise,
}

impl Part {
    /// The shape of this part of a tensor of the shape `whole`.
    pub fn shape(self, whole: &[usize]) -> Vec<usize> {
        match (self, whole) {
            (Self::Third(_), [rows, rest @ ..]) => [&[rows / 3], rest].concat(),
            (Self::Transposed, [a, b]) => vec![*b, *a],
            _ => whole.to_vec(),
        }
    }
}
