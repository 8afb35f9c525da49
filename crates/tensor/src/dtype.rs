//! Element types.

/// Element type of a tensor, a packed weight or a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit IEEE float.
    F32,
    /// bfloat16: the upper half of an f32.
    BF16,
    /// 16-bit IEEE float. Weights and files only, never activations.
    F16,
}

impl DType {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }

    /// The bytes of a tensor of this shape.
    ///
    /// # Panics
    /// If usize cannot hold them.
    pub(crate) fn bytes_of(self, shape: &[usize]) -> usize {
        if shape.contains(&0) {
            return 0;
        }
        let bytes = shape.iter().try_fold(self.size(), |bytes, &n| bytes.checked_mul(n));
        bytes.unwrap_or_else(|| {
            panic!("a tensor {shape:?} in {self}: expected at most {} bytes, found more", usize::MAX)
        })
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
        })
    }
}
