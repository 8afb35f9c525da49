//! The parts of LoRA: down and up weights, and between them the kernel of a convolution's CP decomposition.

use calotype_tensor::Tensor;

use super::super::change::{LoraPair, fold};
use super::super::key::Part;
use super::super::values::{shape_problem, squeezed};
use super::{Layer, Parts, Problem};
use calotype_models::weights::tuple;

impl Parts {
    /// A layer's LoRA. Its parts are checked against each other and against the layer.
    pub(super) fn lora(mut self, layer: &Layer) -> Result<LoraPair, Problem> {
        let missing = |(key, _), what: &str| Err((key, format!("without its {what} weight")));
        let ((down_key, down), (up_key, up)) = match (self.0.remove(&Part::Down), self.0.remove(&Part::Up)) {
            (Some(down), Some(up)) => (down, up),
            (Some(down), None) => return missing(down, "up"),
            (None, Some(up)) => return missing(up, "down"),
            (None, None) => {
                let key = self.0.into_values().next().map_or_else(|| layer.path.into(), |(key, _)| key);
                return Err((key, "without its down and up weights".into()));
            }
        };
        let rank = down.shape().first().copied().unwrap_or(0);
        let down = match self.0.remove(&Part::Mid) {
            Some(mid) => with_mid((&down_key, squeezed(down)), mid)?,
            None => down,
        };
        let linear = match layer.shape() {
            Some(shape) => shape.len() == 2,
            // The UNet's convolutions are called conv_in, conv1, conv_shortcut, downsamplers.0.conv and the like.
            None => !layer.path.rsplit('.').next().is_some_and(|name| name.starts_with("conv")),
        };
        let (down, up) = if linear { (squeezed(down), squeezed(up)) } else { (down, up) };
        if let Some(base) = layer.shape() {
            check_shapes(base, (&down_key, &down), (&up_key, &up))?;
        }
        if rank == 0 || !matches!(down.shape().len(), 2 | 4) {
            return Err((down_key, shape_problem("(rank, in)", &down)));
        }
        if up.shape().get(1) != Some(&rank) || up.numel() != up.dim(0) * rank {
            return Err((up_key, shape_problem(&format!("(out, {rank}), as its down weight"), &up)));
        }
        let alpha = self.alpha(layer, rank)?;
        self.none_left()?;
        Ok(LoraPair { down, up, alpha })
    }
}

/// The down weight of a CP decomposition with its kernel: (rank, in) and (rank, rank, k, k) → (rank, in, k, k).
fn with_mid((down_key, down): (&str, Tensor), (key, mid): Keyed) -> Result<Tensor, Problem> {
    let rank = down.shape().first().copied().unwrap_or(0);
    if down.shape().len() != 2 || down.numel() == 0 {
        return Err((down_key.into(), shape_problem("(rank, in)", &down)));
    }
    match *mid.shape() {
        [a, b, h, w] if a == rank && b == rank && h * w > 0 => Ok(fold(&mid, &down)),
        _ => Err((key, shape_problem(&format!("({rank}, {rank}, k, k), as its down weight"), &mid))),
    }
}

/// A key and its tensor.
type Keyed = (String, Tensor);

fn check_shapes(
    base: &[usize],
    (down_key, down): (&str, &Tensor),
    (up_key, up): (&str, &Tensor),
) -> Result<(), Problem> {
    let rank = down.shape().first().copied().unwrap_or(0);
    let with = |first: usize, rest: &[usize]| [&[first], rest].concat();
    let ones = vec![1; base.len() - 2];
    let (want_down, want_up) = (with(rank, &base[1..]), with(base[0], &with(rank, &ones)));
    // A 1×1 convolution is a linear layer, and its LoRA may have either form.
    let flat = base[2..].iter().all(|&k| k == 1);
    let same = |t: &Tensor, want: &[usize]| t.shape() == want || (flat && t.shape() == &want[..2]);
    for (key, tensor, want) in [(down_key, down, &want_down), (up_key, up, &want_up)] {
        if !same(tensor, want) {
            return Err((key.into(), shape_problem(&tuple(want), tensor)));
        }
    }
    Ok(())
}
