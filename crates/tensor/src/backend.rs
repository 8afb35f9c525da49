//! The seam between ops and devices: the closed set of fused kernels, forward and backward, that a device computes.
//!
//! Kernels take tensors and give tensors, all in the memory of their device. An op in [`crate::ops`] checks shapes and dtypes,
//! calls kernels and records the way back; kernels rely on these checks and record nothing. Where no dtype is named, a result has
//! that of the first tensor. Kernels compute in f32 and round their results.

use crate::dtype::DType;
use crate::memory::Packed;
use crate::stored::StoredWeight;
use crate::tensor::Tensor;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unary {
    /// x · factor.
    Scale(f32),
    /// x / divisor.
    Divide(f32),
    /// x · sigmoid(x).
    Silu,
    /// x Φ(x).
    Gelu,
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// x, or 0 where x is less.
    Relu,
    /// x, or slope · x where x is less than 0.
    LeakyRelu(f32),
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Binary {
    /// a + b.
    Add,
    /// a − b.
    Subtract,
    /// a · b.
    Multiply,
    /// a + factor · b.
    AddScaled(f32),
}

/// What is done to a linear layer's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// x · sigmoid(x).
    Silu,
    /// x Φ(x).
    Gelu,
    /// x · sigmoid(1.702 x).
    QuickGelu,
    /// x, or 0 where x is less.
    Relu,
    /// First half · gelu(second half): halves the width.
    Geglu,
}

impl Activation {
    /// The activation as a function of one number. None for [`Activation::None`] and [`Activation::Geglu`].
    pub(crate) fn unary(self) -> Option<Unary> {
        match self {
            Activation::Silu => Some(Unary::Silu),
            Activation::Gelu => Some(Unary::Gelu),
            Activation::QuickGelu => Some(Unary::QuickGelu),
            Activation::Relu => Some(Unary::Relu),
            Activation::None | Activation::Geglu => None,
        }
    }
}

/// A function of rows: of the last dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowOp {
    /// (.., C) → (.., C): positive numbers with sum 1.
    Softmax,
    /// (.., 2n) → (.., n): first half · gelu(second half).
    Geglu,
}

/// What a sum runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// All elements: any shape → ().
    All,
    /// All rows: (.., C) → (C).
    Rows,
    /// The rows of each image: (B, .., C) → (B, C).
    ImageRows,
}

/// A kernel that moves elements. Each has its way back among the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Move<'a> {
    /// (.., Cᵢ) side by side → (.., Σ Cᵢ).
    Concat,
    /// (.., C) → (.., len): the columns from `start` on.
    Columns { start: usize, len: usize },
    /// (.., len) → (.., width): zeros, with x from column `start` on.
    PlaceColumns { start: usize, width: usize },
    /// (Bᵢ, ..) one after the other → (Σ Bᵢ, ..).
    CatBatch,
    /// (B, ..) → (len, ..): the entries from `start` on.
    SliceBatch { start: usize, len: usize },
    /// (len, ..) → (batch, ..): zeros, with x from entry `start` on.
    PlaceBatch { start: usize, batch: usize },
    /// (B, H, W, C) → (B, 2H, 2W, C): each pixel four times.
    Upsample,
    /// (B, 2H, 2W, C) → (B, H, W, C): the sum of each four pixels.
    UpsampleGrad,
    /// (B, H, W, C) → (B, height, width, C): cut, or continued with zeros, below and on the right.
    Canvas { height: usize, width: usize },
    /// (V, C) → (ids.len(), C): the rows of these numbers, each less than V.
    TakeRows { ids: &'a [u32] },
    /// (ids.len(), C) → (rows, C): zeros with the rows of x added at `ids`, in order, summed in f32.
    AddRows { ids: &'a [u32], rows: usize },
    /// Any shape → `shape`, whose beginning it is, but for dimensions of 1: each element repeated over the rest.
    Repeat { shape: &'a [usize] },
}

/// What is added to a product, and what is done to the sum: act(product + bias + shift) + residual.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    /// (n), f32 or bf16: added to every row.
    pub(crate) bias: Option<&'a Tensor>,
    /// (B, n), f32 or bf16: added to each image's rows. Convolutions only.
    pub(crate) shift: Option<&'a Tensor>,
    /// Linear layers only. Its input and its result are rounded to the result's dtype, as those of an op of its own are.
    pub(crate) act: Activation,
    /// Of the result's shape and dtype: added last.
    pub(crate) residual: Option<&'a Tensor>,
}

impl Epilogue<'_> {
    pub(crate) const NONE: Epilogue<'static> =
        Epilogue { bias: None, shift: None, act: Activation::None, residual: None };
}

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConvShape {
    /// Height and width of x.
    pub(crate) input: [usize; 2],
    /// Height and width of y.
    pub(crate) output: [usize; 2],
    /// Height and width of the kernel.
    pub(crate) kernel: [usize; 2],
    /// In both directions.
    pub(crate) stride: usize,
    /// Zeros above and to the left. Below and to the right, there are as many as the output needs.
    pub(crate) pad: [usize; 2],
}

/// The sizes of one attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadShape {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// Features of a head.
    pub(crate) d: usize,
}

impl HeadShape {
    /// 1 / √d.
    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// Where the features of head `head` of row `row` start, in (batch, rows, heads · d).
    pub(crate) fn at(&self, row: usize, head: usize) -> usize {
        (row * self.heads + head) * self.d
    }
}

/// A bias of this or less hides a key: masks have −∞ there, or the least number of some dtype.
pub(crate) const HIDDEN: f32 = -1e30;

/// What is added to attention's scores.
#[derive(Clone, Copy)]
pub enum Mask<'a> {
    /// Nothing.
    None,
    /// −∞ above the diagonal.
    Causal,
    /// An f32 (T, S) tensor. Numbers of −1e30 and less, −∞ among them, hide a key from a query.
    Bias(&'a Tensor),
}

/// What attention keeps for the way back.
pub(crate) struct AttentionSaved {
    pub(crate) shape: HeadShape,
    /// q (B, T, heads · d), k and v (B, S, heads · d).
    pub(crate) qkv: [Tensor; 3],
    /// (B, T, heads · d)
    pub(crate) y: Tensor,
    /// (B · heads, T), f32: the logarithm of each softmax's denominator.
    pub(crate) lse: Tensor,
    pub(crate) causal: bool,
    /// (T, S), f32.
    pub(crate) bias: Option<Tensor>,
}

impl AttentionSaved {
    pub(crate) fn mask(&self) -> Mask<'_> {
        match &self.bias {
            Some(bias) => Mask::Bias(bias),
            None if self.causal => Mask::Causal,
            None => Mask::None,
        }
    }
}

/// How attention in windows is computed.
#[derive(Clone, Copy)]
pub struct WindowArgs<'a> {
    /// Heads that the features are divided among: at least 1.
    pub heads: usize,
    /// Pixels of a window's side: at least 1.
    pub window: usize,
    /// How many pixels further down and to the right the windows begin, less than a window. What leaves the image at one side comes in
    /// at the other.
    pub shift: usize,
    /// Whether q and k are divided by their lengths, of at least 1e-12, before they are multiplied.
    pub cosine: bool,
    /// (heads), f32: what q·k is multiplied with.
    pub scale: &'a Tensor,
    /// (heads, window², window²), f32: added to the score of a query (by row of the window, then by column) and a key.
    pub bias: &'a Tensor,
    /// Added to the score of two pixels of a shifted window between which an edge of the image lies.
    pub apart: f32,
}

/// How a group norm normalises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormArgs {
    /// Groups of channels: a divisor of their number.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// A step of AdamW, for the parameter's next step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWArgs {
    /// How much of the gradient's average stays, 0 to 1.
    pub beta1: f64,
    /// How much of the average of its squares stays, 0 to 1.
    pub beta2: f64,
    /// Added to the square root.
    pub eps: f32,
    /// Steps taken, this one among them: at least 1.
    pub step: u64,
    /// The learning rate.
    pub lr: f64,
}

/// A step of Adafactor without a first moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorArgs {
    /// How much of the averages stays, 0 to 1.
    pub beta2: f64,
    /// Added to the squares.
    pub eps: f64,
    /// The largest root mean square of a direction. A larger one is scaled down.
    pub clip_threshold: f64,
    /// The learning rate.
    pub lr: f64,
}

/// Adafactor's averages of a gradient's squares.
pub enum AdafactorAverages<'a> {
    /// Of a gradient (.., rows, columns): the averages of each row, (.., rows), and of each column, (.., columns).
    Factored {
        /// Those of the rows.
        rows: &'a mut Tensor,
        /// Those of the columns.
        columns: &'a mut Tensor,
    },
    /// Of each element, as many as the gradient has.
    Full(&'a mut Tensor),
}

/// The elements of a linear layer's weight.
#[derive(Clone, Copy)]
pub(crate) enum Matrix<'a> {
    /// In the layout of the device's kernels.
    Packed(&'a Packed),
    /// As a file has them.
    Stored(&'a StoredWeight),
}

/// The kernels of a device.
pub(crate) trait Backend: Sync {
    /// A tensor of one number.
    fn full(&self, shape: &[usize], value: f32, dtype: DType) -> Tensor;
    /// A tensor of these numbers, rounded to `dtype`.
    fn upload(&self, values: &[f32], shape: &[usize], dtype: DType) -> Tensor;
    /// The elements. The one way back to the host.
    fn download(&self, x: &Tensor) -> Vec<f32>;
    /// The same numbers, rounded to `dtype`.
    fn convert(&self, x: &Tensor, dtype: DType) -> Tensor;

    /// `op` of every element.
    fn unary(&self, op: Unary, x: &Tensor) -> Tensor;
    /// dy · op'(x), of an activation.
    fn unary_grad(&self, op: Unary, x: &Tensor, dy: &Tensor) -> Tensor;
    /// `op` of every pair of elements of two tensors of one shape and dtype.
    fn binary(&self, op: Binary, a: &Tensor, b: &Tensor) -> Tensor;
    /// x · (factor · scalar), of a scalar (), f32.
    fn scale_by(&self, x: &Tensor, factor: f32, scalar: &Tensor) -> Tensor;
    /// `op` of every row.
    fn rows(&self, op: RowOp, x: &Tensor) -> Tensor;
    /// The gradient of the input. `saved` is softmax's result, or GEGLU's input.
    fn rows_grad(&self, op: RowOp, saved: &Tensor, dy: &Tensor) -> Tensor;
    /// A sum, f32. One over nothing is 0.
    fn sum(&self, x: &Tensor, over: Over) -> Tensor;
    /// Elements in another order. [`Move::Concat`] and [`Move::CatBatch`] take one tensor or more, all others one.
    fn moved(&self, op: Move, xs: &[&Tensor]) -> Tensor;

    /// x (.., in), W (out, in) → (.., out), or (.., out / 2) with GEGLU.
    fn linear(&self, x: &Tensor, w: Matrix, epilogue: &Epilogue) -> Tensor;
    /// dy (.., out), W (out, in) → (.., in).
    fn linear_dx(&self, dy: &Tensor, w: &Packed) -> Tensor;
    /// dy (.., out), x (.., in) → (out, in), f32.
    fn linear_dw(&self, dy: &Tensor, x: &Tensor) -> Tensor;
    /// x (B, H, W, I), W (O, I, kh, kw) → (B, Ho, Wo, O).
    fn conv2d(&self, x: &Tensor, w: &Packed, shape: ConvShape, epilogue: &Epilogue) -> Tensor;
    /// dy (B, Ho, Wo, O), W (O, I, kh, kw) → (B, H, W, I).
    fn conv2d_dx(&self, dy: &Tensor, w: &Packed, shape: ConvShape) -> Tensor;
    /// dy (B, Ho, Wo, O), x (B, H, W, I) → (O, I, kh, kw), f32.
    fn conv2d_dw(&self, dy: &Tensor, x: &Tensor, shape: ConvShape) -> Tensor;

    /// softmax(q kᵀ / √d + mask) v → (B, T, heads · d), and the logarithm of each softmax's denominator, (B · heads, T), f32.
    /// A query from which a bias hides every key gets zeros. No dimension is 0.
    fn attention(&self, shape: HeadShape, qkv: [&Tensor; 3], mask: Mask) -> (Tensor, Tensor);
    /// dq, dk and dv.
    fn attention_grad(&self, saved: &AttentionSaved, dy: &Tensor) -> [Tensor; 3];
    /// q, k and v (B, H, W, heads · d) → (B, H, W, heads · d): attention of each pixel to those of its window. H and W are multiples of
    /// the window, and no dimension is 0.
    fn window_attention(&self, args: &WindowArgs, qkv: [&Tensor; 3]) -> Tensor;
    /// x (B, .., C), weight and bias (C) → (B, .., C), and mean and 1 / √(variance + eps) of each group, (B, groups, 2), f32.
    /// No dimension is 0.
    fn group_norm(&self, norm: GroupNormArgs, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2];
    /// `inputs` are x, weight, bias and moments. The gradients of x, unless `with_dx` is false, and of weight and bias, (C), f32.
    fn group_norm_grad(
        &self,
        norm: GroupNormArgs,
        inputs: [&Tensor; 4],
        dy: &Tensor,
        with_dx: bool,
    ) -> (Option<Tensor>, [Tensor; 2]);
    /// x (.., C), weight and bias (C) → (.., C), and mean and 1 / √(variance + eps) of each row, (rows, 2), f32. No dimension is 0.
    fn layer_norm(&self, eps: f32, x: &Tensor, weight: &Tensor, bias: &Tensor) -> [Tensor; 2];
    /// The gradients of x, and of weight and bias, (C), f32.
    fn layer_norm_grad(&self, x: &Tensor, weight: &Tensor, moments: &Tensor, dy: &Tensor) -> [Tensor; 3];

    /// A weight in the layout of the kernels, stored as `store`; (out, in, taps) elements of type `dtype`.
    fn pack(&self, bytes: &[u8], dtype: DType, shape: [usize; 3], store: DType) -> Packed;
    /// A tensor (out, in) or (O, I, kh, kw) in the layout of the kernels, in its own dtype.
    fn pack_tensor(&self, w: &Tensor) -> Packed;
    /// The elements of a weight that is stored as f32, (out, in, taps).
    fn unpack(&self, w: &Packed) -> Tensor;

    // What trains. Tensors are f32, and those that change do so in place, unless others share their memory.

    /// Zeros, f32, in memory of exactly their size, which is kept for long.
    fn kept_zeros(&self, shape: &[usize]) -> Tensor;
    /// x takes these numbers: an upload into memory that is there.
    fn write(&self, x: &mut Tensor, values: &[f32]);
    /// Σ x², which the host waits for. In f64, because squares of f32 may be too large for f32.
    fn sum_squares(&self, x: &Tensor) -> f64;
    /// sum becomes sum + x.
    fn add_to(&self, sum: &mut Tensor, x: &Tensor);
    /// Updates the averages of a gradient and of its squares. The gradient becomes the direction of a step; the result is the
    /// step's factor, ().
    fn adamw(&self, args: &AdamWArgs, averages: [&mut Tensor; 2], grad: &mut Tensor) -> Tensor;
    /// Updates the averages of a gradient's squares. The gradient becomes the direction of a step; the result is the step's
    /// factor, (). No dimension is 0.
    fn adafactor(&self, args: &AdafactorArgs, averages: AdafactorAverages, grad: &mut Tensor) -> Tensor;
    /// Each element p becomes p · keep − factor · d, with the d of `direction` and a factor ().
    fn step(&self, p: &mut Tensor, keep: f32, factor: &Tensor, direction: &Tensor);
    /// The same for a weight that is stored as f32; directions are row-major (out, in, taps).
    fn step_packed(&self, w: &mut Packed, keep: f32, factor: &Tensor, direction: &Tensor);
}
