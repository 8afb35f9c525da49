//! The denoisers' networks of earlier requests, kept for later ones.
//!
//! Networks of one model share the weights that trained weights leave as they are. So another LoRA costs the layers that it changes: they are
//! merged from the model's file, which stays open, while the others stay as they are in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use calotype_models::weights::{SharedWeights, TensorHook};
use calotype_models::{UNet, Weights};

use super::model::Model;
use crate::Error;
use crate::adapters::{Fingerprint, Patch};

/// Which network is kept: the model's, and the trained weights that are merged into it.
enum Wanted {
    /// The base model's network with trained weights, or with the folder's own (`None`).
    Base(Option<Fingerprint>),
    /// The refiner's network.
    Refiner,
}

/// The networks that are kept.
#[derive(Default)]
pub(super) struct KeptUNets {
    /// The most bytes of all networks while there is more than one.
    limit: AtomicU64,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    /// The newest use first.
    networks: Vec<Network>,
    /// The base model's file.
    base: Option<Weights>,
    /// What networks of the base model share.
    shared: SharedWeights,
}

struct Network {
    wanted: Wanted,
    unet: Arc<UNet>,
    /// What the network has for itself.
    bytes: u64,
}

impl KeptUNets {
    /// Sets the most bytes of all networks while there is more than one. Lets go of the oldest ones that exceed it.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::SeqCst);
        self.slot().shrink(bytes, 1, |_| false);
    }

    /// The bytes of all networks.
    pub fn bytes(&self) -> u64 {
        self.slot().bytes()
    }

    /// The base model's network with the changes of trained weights, whose files have this fingerprint (`None`: without changes).
    ///
    /// # Errors
    /// A file is missing, invalid, or changed meanwhile.
    pub fn base(
        &self,
        model: &Model,
        fingerprint: Option<Fingerprint>,
        patch: Arc<Patch>,
    ) -> Result<Arc<UNet>, Error> {
        let wanted = Wanted::Base(fingerprint);
        if let Some(unet) = self.find(&wanted) {
            return Ok(unet);
        }
        let (weights, shared) = self.opened(model)?;
        let bytes = patch.packed_bytes(&weights, model.store());
        let is_new = |key: &str| !patch.changes(key) && !shared.has(key);
        self.make_room(bytes + weights.packed_bytes(is_new), |key| !patch.changes(key));
        let weights = weights.with_shared(shared).with_hook(patch);
        self.load(wanted, bytes, || Ok(UNet::load(&weights, &model.configs.unet)?))
    }

    /// The refiner's network.
    ///
    /// # Errors
    /// As [`Self::base`].
    pub fn refiner(&self, model: &Model) -> Result<Arc<UNet>, Error> {
        if let Some(unet) = self.find(&Wanted::Refiner) {
            return Ok(unet);
        }
        let weights = model.unet_weights()?;
        let bytes = weights.packed_bytes(|_| true);
        self.make_room(bytes, |_| false);
        self.load(Wanted::Refiner, bytes, || Ok(UNet::load(&weights, &model.configs.unet)?))
    }

    /// The base model's file, opened if it is not open, or if it has changed.
    fn opened(&self, model: &Model) -> Result<(Weights, SharedWeights), Error> {
        let mut slot = self.slot();
        let weights = match slot.base.take().filter(Weights::are_unchanged) {
            Some(weights) => weights,
            None => {
                *slot = Slot::default();
                model.unet_weights()?
            }
        };
        slot.base = Some(weights.clone());
        Ok((weights, slot.shared.clone()))
    }

    /// Loads a network, and keeps it.
    fn load(
        &self,
        wanted: Wanted,
        bytes: u64,
        load: impl FnOnce() -> Result<UNet, Error>,
    ) -> Result<Arc<UNet>, Error> {
        // Without the lock. Loading has parallel loops, in which this thread may take up another request. That request would wait for a
        // lock that its own thread holds.
        let unet = Arc::new(load()?);
        // Another request may have loaded the same weights meanwhile, and may have packed them already.
        if let Some(unet) = self.find(&wanted) {
            return Ok(unet);
        }
        self.slot().networks.insert(0, Network { wanted, unet: unet.clone(), bytes });
        Ok(unet)
    }

    /// The kept network that is wanted. It becomes the newest.
    fn find(&self, wanted: &Wanted) -> Option<Arc<UNet>> {
        let mut slot = self.slot();
        let at = slot.networks.iter().position(|network| network.wanted.is_same_as(wanted))?;
        slot.networks[..=at].rotate_right(1);
        Some(slot.networks[0].unet.clone())
    }

    /// Lets go of networks, those that no request can ask for again and then the oldest first, until there is room for `bytes` more within the
    /// limit. They go before the next is loaded, so that all of them are not in memory at a time, unless another prediction still uses one.
    /// Of what is shared, the weights that are `needed` stay.
    fn make_room(&self, bytes: u64, needed: impl Fn(&str) -> bool) {
        let limit = self.limit.load(Ordering::SeqCst);
        let mut slot = self.slot();
        slot.networks.retain(|network| network.wanted.is_settled());
        slot.shrink(limit.saturating_sub(bytes), 0, needed);
    }

    /// Locks the networks. Hold the lock for a moment only, and across no parallel loop.
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn bytes(&self) -> u64 {
        self.shared.bytes() + self.networks.iter().map(|network| network.bytes).sum::<u64>()
    }

    /// Drops the oldest networks until the rest take at most `limit` bytes, or `least` networks are left. Also drops the shared weights that no
    /// network uses, unless they are `needed`.
    fn shrink(&mut self, limit: u64, least: usize, needed: impl Fn(&str) -> bool) {
        self.shared.trim(&needed);
        while self.bytes() > limit && self.networks.len() > least {
            self.networks.pop();
            self.shared.trim(&needed);
        }
    }
}

impl Wanted {
    fn is_same_as(&self, other: &Wanted) -> bool {
        match (self, other) {
            (Wanted::Base(Some(a)), Wanted::Base(Some(b))) => a.is_same_as(b),
            (Wanted::Base(None), Wanted::Base(None)) | (Wanted::Refiner, Wanted::Refiner) => true,
            _ => false,
        }
    }

    /// Whether a later request can ask for the same.
    fn is_settled(&self) -> bool {
        match self {
            Wanted::Base(Some(fingerprint)) => fingerprint.is_settled(),
            Wanted::Base(None) | Wanted::Refiner => true,
        }
    }
}
