//! Other shapes and dtypes of the same values.

use crate::dtype::DType;
use crate::tape::record;
use crate::tensor::Tensor;

impl Tensor {
    /// The same memory under another shape.
    ///
    /// # Panics
    /// If the shape has another number of elements.
    pub fn reshape(&self, shape: &[usize]) -> Tensor {
        let (old, dtype) = (self.shape().to_vec(), self.dtype());
        assert!(
            dtype.bytes_of(shape) == dtype.bytes_of(&old),
            "reshape of {old:?}: expected a shape of {} elements, found {shape:?}",
            self.numel()
        );
        record(self.viewed(shape), &[self.node()], move |dy| vec![Some(dy.reshape(&old))])
    }

    /// The same values, rounded to `dtype`.
    ///
    /// # Panics
    /// If that is f16.
    pub fn to_dtype(&self, dtype: DType) -> Tensor {
        assert_ne!(dtype, DType::F16, "dtype of a tensor: expected f32 or bf16, found f16");
        if dtype == self.dtype() {
            return self.clone();
        }
        let from = self.dtype();
        let y = self.kernels().convert(self, dtype);
        record(y, &[self.node()], move |dy| vec![Some(dy.to_dtype(from))])
    }
}
