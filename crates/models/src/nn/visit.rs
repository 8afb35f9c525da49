//! A visitor of a network's layers, by which a trainer finds the parameters to train.

use calotype_tensor::{Tensor, Weight};

use super::{Conv2d, GroupNorm, LayerNorm, Linear, Lora, Parameter};

/// A layer with parameters, as passed to the closure of [`Module::visit`].
pub enum Layer<'a> {
    /// A linear layer.
    Linear(&'a mut Linear),
    /// A convolution.
    Conv2d(&'a mut Conv2d),
    /// A group norm.
    GroupNorm(&'a mut GroupNorm),
    /// A layer norm.
    LayerNorm(&'a mut LayerNorm),
}

/// A parameter of a layer.
#[derive(Clone, Copy)]
pub enum AnyParameter<'a> {
    /// A bias, or the scale of a norm.
    Tensor(&'a Parameter<Tensor>),
    /// A weight in the kernels' layout.
    Weight(&'a Parameter<Weight>),
}

/// A part of a network.
pub trait Module {
    /// Calls `f` with each layer of this module and the layer's path in a checkpoint: `conv_in`, or
    /// `down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q`. `path` is the path of this module. A whole network has
    /// the empty path.
    fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>));

    /// Calls `f` with each parameter of this module, and the parameter's key and shape in a checkpoint.
    fn visit_parameters(&mut self, path: &str, f: &mut dyn FnMut(&str, &[usize], AnyParameter<'_>)) {
        self.visit(path, &mut |path, layer| layer.parameters(path, f));
    }
}

impl Layer<'_> {
    /// The layer's place for low-rank matrices, with the shape of its weight in a checkpoint. `None`: the layer is a norm.
    pub fn lora(&mut self) -> Option<(&mut Option<Lora>, Vec<usize>)> {
        match self {
            Self::Linear(linear) => {
                let shape = linear.shape();
                Some((&mut linear.lora, shape))
            }
            Self::Conv2d(conv) => {
                let shape = conv.weight.get().shape().to_vec();
                Some((&mut conv.lora, shape))
            }
            Self::GroupNorm(_) | Self::LayerNorm(_) => None,
        }
    }

    /// Calls `f` with the parameters of the layer at `path`, `weight` before `bias`.
    fn parameters(&self, path: &str, f: &mut dyn FnMut(&str, &[usize], AnyParameter<'_>)) {
        let (weight, shape, bias) = match self {
            Self::Linear(linear) => {
                (AnyParameter::Weight(&linear.weight), linear.shape(), linear.bias.as_ref())
            }
            Self::Conv2d(conv) => {
                (AnyParameter::Weight(&conv.weight), conv.weight.get().shape().to_vec(), Some(&conv.bias))
            }
            Self::GroupNorm(GroupNorm { weight, bias, .. })
            | Self::LayerNorm(LayerNorm { weight, bias, .. }) => {
                (AnyParameter::Tensor(weight), weight.get().shape().to_vec(), Some(bias))
            }
        };
        f(&format!("{path}.weight"), &shape, weight);
        if let Some(bias) = bias {
            f(&format!("{path}.bias"), bias.get().shape(), AnyParameter::Tensor(bias));
        }
    }
}

/// The path of the field `name` of the module at `path`.
pub(crate) fn join(path: &str, name: impl std::fmt::Display) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

/// Implements [`Module`] for a type, given its fields that are modules and their names in a checkpoint.
///
/// `module!(Attention { to_q => "to_q", to_out => "to_out.0" })` expands to
/// ```ignore
/// impl Module for Attention {
///     fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>)) {
///         self.to_q.visit(&join(path, "to_q"), f);
///         self.to_out.visit(&join(path, "to_out.0"), f);
///     }
/// }
/// ```
macro_rules! module {
    ($name:ty { $($field:ident => $key:literal),* $(,)? }) => {
        impl $crate::nn::Module for $name {
            fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, $crate::nn::Layer<'_>)) {
                $($crate::nn::Module::visit(&mut self.$field, &$crate::nn::visit::join(path, $key), f);)*
            }
        }
    };
}
pub(crate) use module;

impl<M: Module> Module for Option<M> {
    fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>)) {
        self.iter_mut().for_each(|module| module.visit(path, f));
    }
}

impl<M: Module> Module for Vec<M> {
    /// The path of module `i` is the path of the list, a dot, and `i`.
    fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>)) {
        for (i, module) in self.iter_mut().enumerate() {
            module.visit(&join(path, i), f);
        }
    }
}

impl Module for Linear {
    fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>)) {
        f(path, Layer::Linear(self));
    }
}

impl Module for Conv2d {
    fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>)) {
        f(path, Layer::Conv2d(self));
    }
}

impl Module for GroupNorm {
    fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>)) {
        f(path, Layer::GroupNorm(self));
    }
}

impl Module for LayerNorm {
    fn visit(&mut self, path: &str, f: &mut dyn FnMut(&str, Layer<'_>)) {
        f(path, Layer::LayerNorm(self));
    }
}
