//! The memory that tensors of the meta device would take. Each thread counts for itself.

use std::cell::Cell;

/// Bytes of one thread's tensors.
#[derive(Clone, Copy, Default)]
struct Bytes {
    /// Of tensors that are alive. Below 0 where tensors of another thread ended here.
    live: i64,
    /// The most that were alive at once.
    peak: i64,
}

thread_local! {
    static BYTES: Cell<Bytes> = const { Cell::new(Bytes { live: 0, peak: 0 }) };
}

/// The size of a tensor's memory, without the memory.
pub(crate) struct MetaMemory {
    bytes: usize,
}

impl MetaMemory {
    pub(crate) fn new(bytes: usize) -> MetaMemory {
        change(bytes as i64);
        MetaMemory { bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for MetaMemory {
    fn drop(&mut self) {
        change(-(self.bytes as i64));
    }
}

fn change(by: i64) {
    // A tensor may end after the counter of its thread, when a thread ends.
    let _ = BYTES.try_with(|bytes| {
        let Bytes { live, peak } = bytes.get();
        let live = live.saturating_add(by);
        bytes.set(Bytes { live, peak: peak.max(live) });
    });
}

/// The result of `f`, and the most bytes that its tensors take at once, in addition to those of tensors from before.
pub(crate) fn peak_bytes<R>(f: impl FnOnce() -> R) -> (R, usize) {
    let before = BYTES.get();
    BYTES.set(Bytes { peak: before.live, ..before });
    let result = f();
    let Bytes { live, peak } = BYTES.get();
    BYTES.set(Bytes { live, peak: before.peak.max(peak) });
    (result, (peak - before.live).max(0) as usize)
}
