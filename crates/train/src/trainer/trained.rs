//! The trained parameters, each with its optimizer.

use std::sync::Arc;

use super::{full, lora};
use crate::optim::{self, AdamW, Optimizer};
use crate::plan::{Method, TrainPlan};
use calotype_models::UNet;
use calotype_models::nn::{Parameter, Trainable};
use calotype_sdxl::ArgumentError;
use calotype_tensor::{Tensor, ops};

/// Weight decay of the new tokens' embeddings.
const EMBEDDING_DECAY: f64 = 1e-3;

/// A parameter and its optimizer.
pub(crate) struct TrainedParameter {
    /// The parameter's name in the files of trained weights.
    pub(crate) name: String,
    /// The parameter's shape in those files.
    pub(crate) shape: Vec<usize>,
    pub(crate) parameter: Arc<dyn Trainable>,
    pub(crate) state: optim::OptimizerState,
    /// Whether this parameter holds the new tokens' embeddings.
    pub(crate) is_embedding: bool,
    optimizer: &'static dyn Optimizer,
}

/// Prepares the UNet for training. Returns every trained parameter, in a fixed order.
pub(crate) fn all(
    plan: &TrainPlan,
    unet: &mut UNet,
    embeddings: &[Parameter],
) -> Result<Vec<TrainedParameter>, ArgumentError> {
    let optimizer = plan.optimizer()?;
    let mut all = Vec::new();
    match plan.method {
        Method::Lora { rank } => {
            for (path, lora) in lora::inject(unet, rank, plan.options.lora_layers, plan.seed) {
                all.push(TrainedParameter::tensor(format!("{path}.down"), lora.down, optimizer));
                all.push(TrainedParameter::tensor(format!("{path}.up"), lora.up, optimizer));
            }
        }
        Method::Full => {
            for (key, tensor) in full::record(unet) {
                all.push(TrainedParameter::new(key, tensor.shape, tensor.parameter, optimizer));
            }
        }
        Method::TextualInversion => {}
    }
    for (i, embeddings) in embeddings.iter().enumerate() {
        let trained = TrainedParameter::tensor(format!("text_encoders_{i}"), embeddings.clone(), &AdamW);
        all.push(TrainedParameter { is_embedding: true, ..trained });
    }
    Ok(all)
}

impl TrainedParameter {
    fn new(
        name: String,
        shape: Vec<usize>,
        parameter: Arc<dyn Trainable>,
        optimizer: &'static dyn Optimizer,
    ) -> Self {
        let state = optimizer.state(&shape, parameter.device());
        Self { state, name, shape, parameter, is_embedding: false, optimizer }
    }

    fn tensor(name: String, parameter: Parameter, optimizer: &'static dyn Optimizer) -> Self {
        Self::new(name, parameter.get().shape().to_vec(), Arc::new(parameter), optimizer)
    }

    /// The number of the parameter's values.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Takes a step along `gradient`, of as many values, times `clip`.
    pub(crate) fn update(&mut self, gradient: Tensor, clip: f32, lr: f64) {
        let shaped = gradient.reshape(&self.shape);
        drop(gradient); // so that `shaped` alone has the memory, and the step changes it in place
        let mut gradient = shaped;
        if clip != 1.0 {
            gradient = ops::scale(&gradient, clip);
        }
        let factor = self.optimizer.step(&mut self.state, &mut gradient, lr);
        let decay = if self.is_embedding { EMBEDDING_DECAY } else { self.optimizer.weight_decay() };
        let keep = (1.0 - lr * decay) as f32;
        self.parameter.step(keep, &factor, &gradient);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use calotype_tensor::{DType, Device};

    use super::*;
    use crate::optim::OptimizerState;

    /// The address of the last gradient's memory, after it was changed.
    static ADDRESS: AtomicUsize = AtomicUsize::new(0);

    struct Observed;

    impl Optimizer for Observed {
        fn name(&self) -> &'static str {
            "observed"
        }

        fn weight_decay(&self) -> f64 {
            0.0
        }

        fn clips(&self) -> bool {
            false
        }

        fn averages(&self, _: &[usize]) -> Vec<(&'static str, Vec<usize>)> {
            Vec::new()
        }

        fn step(&self, _: &mut OptimizerState, grad: &mut Tensor, _: f64) -> Tensor {
            ADDRESS.store(grad.f32s_mut().as_ptr() as usize, Ordering::Relaxed);
            Device::Cpu.zeros(&[], DType::F32)
        }
    }

    /// Protects the memory of a full fine-tune: the optimizer turns a gradient into a direction in the gradient's own memory.
    #[test]
    fn a_gradient_is_not_copied() {
        let parameter = Parameter::<Tensor>::new(Tensor::zeros(&[2, 3], DType::F32));
        let mut trained = TrainedParameter::tensor("p".into(), parameter, &Observed);
        let gradient = Tensor::zeros(&[6], DType::F32);
        let address = gradient.f32s().as_ptr() as usize;
        trained.update(gradient, 1.0, 0.1);
        assert_eq!(ADDRESS.load(Ordering::Relaxed), address);
    }
}
