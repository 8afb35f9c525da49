//! One weight, wanted by two pieces of work that share a thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use calotype_tensor::ops::{self, LinearArgs};
use calotype_tensor::{DType, Device, Tensor, Weight, WeightBytes};

/// Far more than the work takes: only a deadlock lasts so long.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes of ones whose second reading (the first is the constructor's) does what a thread may do that waits in the parallel
/// loop of packing: other work, which wants the same weight.
struct Stolen {
    bytes: Vec<u8>,
    readings: AtomicUsize,
    weight: Arc<OnceLock<Weight>>,
}

impl WeightBytes for Stolen {
    fn bytes(&self) -> &[u8] {
        if self.readings.fetch_add(1, Ordering::SeqCst) == 1 {
            sums(self.weight.get().expect("it is there"));
        }
        &self.bytes
    }
}

/// The sums of eight ones, by a weight (16, 8) of ones.
fn sums(weight: &Weight) -> Vec<f32> {
    let ones = Tensor::full(&[1, 8], 1.0, DType::F32);
    ops::linear(&ones, weight, LinearArgs::default()).to_vec()
}

/// Protects a service: a weight that is packed at its first use is not packed inside of its cell, where other work on the same
/// thread would wait for itself.
#[test]
fn packing_holds_nothing() {
    let weight = Arc::new(OnceLock::new());
    let bytes = 1f32.to_le_bytes().repeat(16 * 8);
    let stolen = Stolen { bytes, readings: AtomicUsize::new(0), weight: weight.clone() };
    let lazy = Weight::lazy(Box::new(stolen), DType::F32, [16, 8, 1, 1], DType::F32, Device::Cpu);
    let lazy = weight.get_or_init(|| lazy).clone();
    let (done, result) = mpsc::channel();
    std::thread::spawn(move || drop(done.send(sums(&lazy))));
    assert_eq!(result.recv_timeout(LIMIT).expect("a deadlock"), [8.0; 16]);
}
