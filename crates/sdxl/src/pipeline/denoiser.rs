//! The denoiser: a network with the conditioning of a request.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use calotype_models::{Context, UNet};
use calotype_tensor::{DType, Tensor, ops};

use super::guided;
use super::model::Model;
use super::preview::Preview;
use super::progress::Progress;
use super::start::Making;
use crate::prompt::PromptEmbeds;
use crate::samplers::{self, Hooks, Schedule};
use crate::{Error, PredictPlan};

/// A UNet with the conditioning of a request.
pub(super) struct Denoiser {
    unet: Arc<UNet>,
    context: Context,
    /// The dtype of the network's activations.
    dtype: DType,
    /// The scale of classifier-free guidance, if the context also has the negative prompt, first.
    guidance: Option<f32>,
}

impl Denoiser {
    /// A model's denoiser for a plan.
    pub fn new(
        model: &Model,
        unet: Arc<UNet>,
        embeds: &PromptEmbeds,
        plan: &PredictPlan,
        dtype: DType,
    ) -> Self {
        let context = model.condition(&unet, embeds, plan);
        let guidance = guided(plan).then_some(plan.guidance_scale as f32);
        Denoiser { unet, context, dtype, guidance }
    }

    /// Makes the steps `range` of a picture. `blend`: the preserved part is put back after each step.
    ///
    /// # Errors
    /// The caller stops the run.
    pub fn run(
        &self,
        schedule: &Schedule,
        range: Range<usize>,
        making: &mut Making,
        blend: bool,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let Making { picture, done, x, noise, preserved, seen } = making;
        let (picture, decoder) = (*picture, progress.decoder);
        let blended = preserved.as_ref().filter(|_| blend);
        let mut stopped = Ok(());
        let mut hooks = Hooks {
            denoise: &mut |x, t| self.output(x, t, seen.as_ref()),
            noise: &mut || noise.draw(),
            constrain: &mut |x, level| match blended {
                Some(preserved) => preserved.put_into(&x, schedule, level),
                None => x,
            },
            on_step: &mut |samplers::Step { x0, .. }| {
                *done += 1;
                let preserved = preserved.as_ref();
                stopped = progress.step_done(decoder.map(|decoder| Preview {
                    picture,
                    step: *done,
                    decoder,
                    x0,
                    preserved,
                }));
                if stopped.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        };
        match samplers::sample(schedule, range, x.clone(), &mut hooks) {
            ControlFlow::Continue(latents) => *x = latents,
            ControlFlow::Break(()) => return Err(stopped.err().unwrap_or(Error::Interrupted)),
        }
        Ok(())
    }

    /// The network's output for latents x (1, h, w, C), and `seen` channels if the network takes more. Guidance (Ho & Salimans,
    /// 2022) moves the output away from that for the negative prompt.
    fn output(&self, x: &Tensor, t: f32, seen: Option<&Tensor>) -> Tensor {
        let x = match seen {
            Some(seen) => ops::concat(&[x, seen]).to_dtype(self.dtype),
            None => x.to_dtype(self.dtype),
        };
        let Some(scale) = self.guidance else { return self.unet.forward(&x, &[t], &self.context) };
        let both = self.unet.forward(&ops::cat_batch(&[&x, &x]), &[t], &self.context).to_dtype(DType::F32); // (2, h, w, C)
        let (negative, positive) = (ops::slice_batch(&both, 0, 1), ops::slice_batch(&both, 1, 1));
        ops::lincomb(&[(1.0 - scale, &negative), (scale, &positive)])
    }
}
