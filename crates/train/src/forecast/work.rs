//! Counts the work of a network from its config, op by op, forward and backward.

use std::ops::{Add, AddAssign, Mul, Sub};

use calotype_tensor::cpu::uses_winograd;

use super::stages::{Stage, side, stages};
use calotype_models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use calotype_models::tokenizer::CLIP_TOKENS;

/// A product as narrow as a LoRA's takes the time of this many times its FLOPs.
const NARROW: f64 = 7.0;

/// Kinds of work. Each has its own speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// FLOPs of matrix products (2 per multiply-add; those of LoRA count several times), and of convolutions that are computed
    /// as products.
    Product,
    /// FLOPs of 3 × 3 convolutions by Winograd's algorithm, counted as for a direct computation.
    Winograd,
    /// FLOPs of the gradients of weights.
    WeightGradient,
    /// FLOPs of attention without its projections.
    Attention,
    /// FLOPs of attention's backward pass.
    AttentionBack,
    /// Values that all other ops give: norms, activations, sums, copies.
    Values,
    /// Values of weights that a pass reads.
    Weights,
    /// Calls of ops.
    Ops,
}

/// The number of kinds.
pub const KINDS: usize = 8;

/// The amount of each kind of work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work(pub [f64; KINDS]);

impl Work {
    fn count(&mut self, kind: WorkKind, amount: f64) {
        self.0[kind as usize] += amount;
    }

    /// The amount of one kind.
    pub fn of(&self, kind: WorkKind) -> f64 {
        self.0[kind as usize]
    }

    /// The FLOPs of all kinds together.
    #[cfg(test)]
    pub fn flops(&self) -> f64 {
        self.0[..WorkKind::Values as usize].iter().sum()
    }
}

impl Add for Work {
    type Output = Work;
    fn add(self, other: Work) -> Work {
        Work(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        *self = *self + other;
    }
}

impl Sub for Work {
    type Output = Work;
    fn sub(self, other: Work) -> Work {
        self + other * -1.0
    }
}

impl Mul<f64> for Work {
    type Output = Work;
    fn mul(self, factor: f64) -> Work {
        Work(self.0.map(|amount| amount * factor))
    }
}

/// The trained parameters, as far as the backward pass depends on them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trains {
    /// The rank of attention's LoRA.
    pub lora: Option<usize>,
    /// Whether the weights themselves are trained.
    pub full: bool,
    /// Whether the new tokens' embeddings are trained, so that gradients flow into the text states.
    pub embeddings: bool,
    /// Whether blocks are recomputed in the backward pass.
    pub recompute: bool,
}

/// The work of a forward and backward pass through a network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub forward: Work,
    pub back: Work,
    trains: Trains,
    /// Whether the input of the next op needs a gradient.
    on_tape: bool,
}

impl Count {
    fn new(trains: Trains) -> Self {
        Self { trains, on_tape: trains.embeddings, ..Self::default() }
    }

    /// The work of both passes.
    pub fn both(&self) -> Work {
        self.forward + self.back
    }

    /// A product of `rows` inputs with a weight (inp → out), of kind `kind`.
    fn product(&mut self, kind: WorkKind, rows: f64, inp: f64, out: f64) {
        let (flops, weights) = (2.0 * rows * inp * out, inp * out);
        let mut pass = Work::default();
        pass.count(kind, flops);
        pass.count(WorkKind::Weights, weights);
        pass.count(WorkKind::Ops, 1.0);
        self.forward += pass;
        if self.on_tape {
            self.back += pass;
        }
        if self.trains.full {
            self.back.count(WorkKind::WeightGradient, flops);
            self.back.count(WorkKind::Weights, weights);
            self.back.count(WorkKind::Ops, 1.0);
            self.on_tape = true;
        }
    }

    fn linear(&mut self, rows: usize, inp: usize, out: usize) {
        self.product(WorkKind::Product, rows as f64, inp as f64, out as f64);
    }

    /// A linear layer of an attention, with its LoRA.
    fn adapted(&mut self, rows: usize, inp: usize, out: usize) {
        self.linear(rows, inp, out);
        let Some(rank) = self.trains.lora else { return };
        let mut pass = Work::default();
        pass.count(WorkKind::Product, NARROW * 2.0 * (rows * rank * (inp + out)) as f64);
        pass.count(WorkKind::Weights, (rank * (inp + out)) as f64);
        pass.count(WorkKind::Ops, 2.0);
        self.forward += pass;
        self.back += pass * 2.0; // of the inputs (but for a text that stands still), of the weights
        self.on_tape = true;
    }

    /// A convolution that gives `out_side`² pixels for each of `batch` images.
    fn conv(&mut self, batch: usize, out_side: usize, [inp, out]: [usize; 2], kernel: usize, stride: usize) {
        let winograd = kernel == 3 && stride == 1 && uses_winograd([out_side; 2], [inp, out]);
        let kind = if winograd { WorkKind::Winograd } else { WorkKind::Product };
        let pixels = (batch * out_side * out_side) as f64;
        self.product(kind, pixels, (kernel * kernel * inp) as f64, out as f64);
    }

    /// Scores and weighted sums over `channels`, of all heads together.
    fn attention(&mut self, batch: usize, queries: usize, keys: usize, channels: usize) {
        let product = 2.0 * (batch * queries * keys) as f64 * channels as f64;
        self.forward.count(WorkKind::Attention, 2.0 * product);
        self.forward.count(WorkKind::Ops, 1.0);
        if self.on_tape {
            self.back.count(WorkKind::AttentionBack, 5.0 * product); // includes recomputed scores
            self.back.count(WorkKind::Ops, 1.0);
        }
    }

    /// An op that is not a product and gives `count` values.
    fn values(&mut self, count: usize) {
        let mut pass = Work::default();
        pass.count(WorkKind::Values, count as f64);
        pass.count(WorkKind::Ops, 1.0);
        self.forward += pass;
        if self.on_tape {
            self.back += pass;
        }
    }

    /// A block that is recomputed if blocks are.
    fn block(&mut self, block: impl FnOnce(&mut Self)) {
        let before = self.forward;
        block(self);
        if self.trains.recompute && self.on_tape {
            self.back += self.forward - before;
        }
    }

    fn resnet(&mut self, batch: usize, side: usize, [inp, out]: [usize; 2], embed: Option<usize>) {
        let pixels = batch * side * side;
        self.values(pixels * inp);
        self.conv(batch, side, [inp, out], 3, 1);
        if let Some(width) = embed {
            let on_tape = std::mem::replace(&mut self.on_tape, self.trains.embeddings);
            self.linear(batch, width, out);
            self.on_tape |= on_tape;
        }
        self.values(pixels * out);
        self.conv(batch, side, [out, out], 3, 1);
        if inp != out {
            self.conv(batch, side, [inp, out], 1, 1);
        }
    }

    fn transformer(&mut self, batch: usize, tokens: usize, channels: usize, depth: usize, text: usize) {
        let rows = batch * tokens;
        self.values(rows * channels);
        self.linear(rows, channels, channels);
        for _ in 0..depth {
            self.keys_and_values(batch * CLIP_TOKENS, text, channels);
            self.block(|count| count.transformer_block(batch, tokens, channels));
        }
        self.linear(rows, channels, channels);
    }

    /// The keys and values of a text, which are computed outside of the block that uses them.
    fn keys_and_values(&mut self, rows: usize, text: usize, channels: usize) {
        let on_tape = std::mem::replace(&mut self.on_tape, self.trains.embeddings);
        self.adapted(rows, text, channels);
        self.adapted(rows, text, channels);
        self.on_tape |= on_tape;
    }

    /// A norm, and self-attention of `tokens` tokens with its projections.
    fn self_attention(&mut self, batch: usize, tokens: usize, channels: usize) {
        let rows = batch * tokens;
        self.values(rows * channels);
        (0..3).for_each(|_| self.adapted(rows, channels, channels));
        self.attention(batch, tokens, tokens, channels);
        self.adapted(rows, channels, channels);
    }

    fn transformer_block(&mut self, batch: usize, tokens: usize, channels: usize) {
        let rows = batch * tokens;
        self.self_attention(batch, tokens, channels);
        self.values(rows * channels);
        self.adapted(rows, channels, channels);
        self.attention(batch, tokens, CLIP_TOKENS, channels);
        self.adapted(rows, channels, channels);
        self.values(rows * channels);
        self.linear(rows, channels, 8 * channels);
        self.values(rows * 8 * channels);
        self.linear(rows, 4 * channels, channels);
    }
}

/// The UNet on a batch of latents, `latent` per side, with the keys and values of its texts.
pub fn unet(config: &UNetConfig, batch: usize, latent: usize, trains: Trains) -> Count {
    let mut count = Count::new(trains);
    let (channels, width) = (&config.block_out_channels, config.time_embed_dim);
    for input in [channels[0], config.projection_class_embeddings_input_dim] {
        count.linear(batch, input, width);
        count.linear(batch, width, width);
    }
    count.on_tape = trains.full;
    count.conv(batch, latent, [config.in_channels, channels[0]], 3, 1);
    for stage in stages(config) {
        match stage {
            Stage::Resnet { level, input, output } => {
                let side = side(latent, level);
                count.block(|count| count.resnet(batch, side, [input, output], Some(width)));
            }
            Stage::Transformer { level, depth } => {
                let tokens = side(latent, level).pow(2);
                count.transformer(batch, tokens, channels[level], depth, config.cross_attention_dim);
            }
            Stage::Down { level } => count.conv(batch, side(latent, level + 1), [channels[level]; 2], 3, 2),
            Stage::Up { level } => {
                let side = side(latent, level - 1);
                count.values(batch * side * side * channels[level]);
                count.conv(batch, side, [channels[level]; 2], 3, 1);
            }
        }
    }
    count.values(batch * latent * latent * channels[0]);
    count.conv(batch, latent, [channels[0], config.out_channels], 3, 1);
    count
}

/// A text encoder on `batch` captions. With a `projection`, the backward pass includes the last layer.
pub fn text(config: &ClipTextConfig, batch: usize, projection: bool, embeddings_train: bool) -> Count {
    let mut count = Count::new(Trains { embeddings: embeddings_train, ..Trains::default() });
    let (width, inner, rows) = (config.hidden_size, config.intermediate_size, batch * CLIP_TOKENS);
    count.values(rows * width);
    for layer in 0..config.num_hidden_layers {
        count.on_tape = embeddings_train && (projection || layer + 1 < config.num_hidden_layers);
        count.self_attention(batch, CLIP_TOKENS, width);
        count.values(rows * width);
        count.linear(rows, width, inner);
        count.values(rows * inner);
        count.linear(rows, inner, width);
    }
    if projection {
        count.linear(batch, width, config.projection_dim);
    }
    count
}

/// The VAE's encoder on a picture of `side` × `side` pixels.
pub fn encoder(config: &VaeConfig, side: usize) -> Work {
    let (channels, mut count, mut side) = (&config.block_out_channels, Count::default(), side);
    count.conv(1, side, [config.in_channels, channels[0]], 3, 1);
    let mut input = channels[0];
    for (i, &output) in channels.iter().enumerate() {
        for _ in 0..config.layers_per_block {
            count.resnet(1, side, [input, output], None);
            input = output;
        }
        if i + 1 < channels.len() {
            side /= 2;
            count.conv(1, side, [output, output], 3, 2);
        }
    }
    count.middle(config, side);
    count.values(side * side * input);
    count.conv(1, side, [input, 2 * config.latent_channels], 3, 1);
    if config.use_quant_conv {
        count.conv(1, side, [2 * config.latent_channels; 2], 1, 1);
    }
    count.forward
}

impl Count {
    /// The middle block of a VAE.
    fn middle(&mut self, config: &VaeConfig, side: usize) {
        let channels = config.block_out_channels[config.block_out_channels.len() - 1];
        let pixels = side * side;
        self.resnet(1, side, [channels, channels], None);
        if config.mid_block_add_attention {
            self.self_attention(1, pixels, channels);
        }
        self.resnet(1, side, [channels, channels], None);
    }
}
