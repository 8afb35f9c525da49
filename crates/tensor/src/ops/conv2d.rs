//! Convolutions over NHWC images.

use super::check;
use crate::backend::{Activation, ConvShape, Epilogue, Over};
use crate::dtype::DType;
use crate::tape::{node_of, record};
use crate::tensor::Tensor;
use crate::weight::Weight;

/// Where an image is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// Half the kernel's height above and below, half its width on the left and on the right, rounded down.
    Same,
    /// One row below and one column on the right: the VAE encoder's downsampling.
    BottomRight,
}

/// Stride and padding of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// 1 or 2, in both directions.
    pub stride: usize,
    /// Where zeros are added.
    pub padding: Padding,
}

impl Conv {
    /// The sizes for a `kernel` over an image of height and width `size`.
    fn shape(&self, size: [usize; 2], kernel: [usize; 2]) -> ConvShape {
        assert!(matches!(self.stride, 1 | 2), "conv2d: stride: expected 1 or 2, found {}", self.stride);
        let (pad, padded) = match self.padding {
            Padding::Same => (kernel.map(|k| k / 2), kernel.map(|k| k / 2 * 2)),
            Padding::BottomRight => ([0, 0], [1, 1]),
        };
        let fits = |i: usize| kernel[i] > 0 && kernel[i] <= size[i] + padded[i];
        assert!(
            fits(0) && fits(1),
            "conv2d: kernel: expected 1 pixel to the size of the padded image {size:?}, found {kernel:?}"
        );
        let out = |i: usize| (size[i] + padded[i] - kernel[i]) / self.stride + 1;
        ConvShape { input: size, output: [out(0), out(1)], kernel, stride: self.stride, pad }
    }
}

/// What is added to a convolution's result; by default nothing.
#[derive(Clone, Copy, Default)]
pub struct ConvArgs<'a> {
    /// (O): added to every pixel.
    pub bias: Option<&'a Tensor>,
    /// (B, O): added to each image's pixels.
    pub shift: Option<&'a Tensor>,
    /// (B, Ho, Wo, O), of x's dtype: added last.
    pub residual: Option<&'a Tensor>,
}

/// x (B, H, W, I) → (B, Ho, Wo, O): convolution + bias (O) + shift (B, O) + residual (B, Ho, Wo, O). Bias and shift are f32 or
/// bf16 whatever x is; the residual has x's dtype. A sum over no channels is 0.
///
/// # Panics
/// If a shape or the residual's dtype is another, the stride is neither 1 nor 2, or the kernel is empty or larger than the
/// padded image.
pub fn conv2d(x: &Tensor, w: &Weight, conv: Conv, args: ConvArgs) -> Tensor {
    let [batch, height, width, _] = check::image("conv2d", x);
    check::shape("conv2d", "x", x, &[batch, height, width, w.inp()]);
    let shape = conv.shape([height, width], w.kernel());
    let [ho, wo] = shape.output;
    check_args(&[batch, ho, wo, w.out()], x.dtype(), args);
    let ConvArgs { bias, shift, residual } = args;
    let epilogue = Epilogue { bias, shift, act: Activation::None, residual };
    let y = x.kernels().conv2d(x, w.packed(), shape, &epilogue);
    let (kx, kw) = (w.node().map(|_| x.detach()), w.clone());
    let needs_x = x.requires_grad();
    let [bias_dtype, shift_dtype] = [bias, shift].map(|t| node_of(t).and(t).map(Tensor::dtype));
    record(y, &[x.node(), w.node(), node_of(bias), node_of(shift), node_of(residual)], move |dy| {
        let kernels = dy.kernels();
        let dx = needs_x.then(|| kernels.conv2d_dx(dy, kw.packed(), shape));
        let dw = kx.map(|x| kw.gradient(kernels.conv2d_dw(dy, &x, shape)));
        let db = bias_dtype.map(|dtype| kernels.sum(dy, Over::Rows).to_dtype(dtype));
        let ds = shift_dtype.map(|dtype| kernels.sum(dy, Over::ImageRows).to_dtype(dtype));
        vec![dx, dw, db, ds, Some(dy.clone())]
    })
}

/// That what is added to the result, of shape `out`, fits.
fn check_args(out: &[usize; 4], dtype: DType, ConvArgs { bias, shift, residual }: ConvArgs) {
    let &[batch, _, _, channels] = out;
    if let Some(bias) = bias {
        check::shape("conv2d", "bias", bias, &[channels]);
    }
    if let Some(shift) = shift {
        check::shape("conv2d", "shift", shift, &[batch, channels]);
    }
    if let Some(residual) = residual {
        check::shape("conv2d", "residual", residual, out);
        check::dtype("conv2d", "residual", residual, dtype);
    }
}
