//! The denoiser with its conditioning, and the network that is kept between requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use calotype_models::{Context, UNet};
use calotype_tensor::{DType, Tensor, ops};

use crate::Error;
use crate::adapters::Fingerprint;

/// A UNet with the conditioning of a request.
pub(super) struct Denoiser<'a> {
    pub unet: &'a UNet,
    pub context: Context,
    /// The dtype of the network's activations.
    pub dtype: DType,
    /// The scale of classifier-free guidance, if the context also has the negative prompt, first.
    pub guidance: Option<f32>,
}

impl Denoiser<'_> {
    /// The network's output for latents x (1, h, w, C). Guidance (Ho & Salimans, 2022) moves the output away from
    /// that for the negative prompt.
    pub fn output(&self, x: &Tensor, t: f32) -> Tensor {
        let x = x.to_dtype(self.dtype);
        let Some(scale) = self.guidance else { return self.unet.forward(&x, &[t], &self.context) };
        let both = self.unet.forward(&ops::cat_batch(&[&x, &x]), &[t], &self.context).to_dtype(DType::F32); // (2, h, w, C)
        let (negative, positive) = (ops::slice_batch(&both, 0, 1), ops::slice_batch(&both, 1, 1));
        ops::lincomb(&[(1.0 - scale, &negative), (scale, &positive)])
    }
}

/// The denoiser of the last request, for the next.
#[derive(Default)]
pub(super) struct KeptUNet(Mutex<Option<Merged>>);

/// A denoiser, and the trained weights that are merged into it (`None`: the folder's own weights).
struct Merged {
    unet: Arc<UNet>,
    weights: Option<Fingerprint>,
}

impl KeptUNet {
    /// The kept denoiser if it has exactly the `wanted` trained weights, else the one that `load` gives, which is kept.
    pub fn get(
        &self,
        wanted: Option<Fingerprint>,
        load: impl FnOnce() -> Result<UNet, Error>,
    ) -> Result<Arc<UNet>, Error> {
        if let Some(unet) = self.find(&wanted) {
            return Ok(unet);
        }
        // Loaded without the lock. Loading has parallel loops, in which this thread may take up another request. That request
        // would wait for a lock that its own thread holds.
        let unet = Arc::new(load()?);
        // Another request may have loaded the same weights meanwhile, and may have packed them already.
        if let Some(unet) = self.find(&wanted) {
            return Ok(unet);
        }
        *self.slot() = Some(Merged { unet: unet.clone(), weights: wanted });
        Ok(unet)
    }

    /// The kept denoiser, if it has exactly these trained weights. A denoiser with others is dropped first, so that two are not
    /// in memory while the next is loaded, unless another prediction still uses the old one.
    fn find(&self, wanted: &Option<Fingerprint>) -> Option<Arc<UNet>> {
        let mut kept = self.slot();
        let merged = kept.as_ref()?;
        let same = match (&merged.weights, wanted) {
            (Some(loaded), Some(wanted)) => loaded.is_same_as(wanted),
            (loaded, wanted) => loaded.is_none() && wanted.is_none(),
        };
        if same {
            return Some(merged.unet.clone());
        }
        *kept = None;
        None
    }

    /// Locks the kept denoiser. Hold the lock for a moment only, and across no parallel loop.
    fn slot(&self) -> MutexGuard<'_, Option<Merged>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
