//! Weights that several networks of one model share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use calotype_tensor::Weight;

use crate::parameter::Parameter;

/// The weights of layers that several networks have alike, by checkpoint key: those that no hook changes. They are in memory once, packed once,
/// and read from the file once. A clone is the same set.
#[derive(Clone, Default)]
pub struct SharedWeights(Arc<Mutex<BTreeMap<String, Shared>>>);

struct Shared {
    weight: Parameter<Weight>,
    /// The bytes of memory that the weight takes once it is packed.
    bytes: u64,
}

impl SharedWeights {
    /// Whether the weight of this key is there.
    pub fn has(&self, key: &str) -> bool {
        self.lock().contains_key(key)
    }

    /// The bytes of memory that the weights take once all of them are packed.
    pub fn bytes(&self) -> u64 {
        self.lock().values().map(|shared| shared.bytes).sum()
    }

    /// Lets go of the weights that no network has any more, but for those that are `needed`, by their keys.
    pub fn trim(&self, needed: impl Fn(&str) -> bool) {
        self.lock().retain(|key, shared| shared.weight.is_shared() || needed(key));
    }

    pub(super) fn get(&self, key: &str) -> Option<Parameter<Weight>> {
        self.lock().get(key).map(|shared| shared.weight.clone())
    }

    /// Adds a weight. Where another thread has added the same one meanwhile, that is returned.
    pub(super) fn add(&self, key: String, weight: Parameter<Weight>, bytes: u64) -> Parameter<Weight> {
        self.lock().entry(key).or_insert(Shared { weight, bytes }).weight.clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
