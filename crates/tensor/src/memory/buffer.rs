//! Aligned memory for tensors, reused through a pool: a fresh mapping costs a
//! page fault for every 4 KiB, which is as much as the arithmetic of a cheap op.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock, Mutex};

use bytemuck::{AnyBitPattern, NoUninit};
use memmap2::MmapMut;

/// Alignment of every buffer: a cache line, and an AVX-512 register.
const ALIGN: usize = 64;
/// Bytes past the end that a kernel may read (never use): one register.
const SLACK: usize = 64;
/// What buffers in use and the pool may take together even if there were never so many in use at a time.
const POOL_BYTES: usize = 1 << 28;
/// Buffers below this size are left to the system allocator, which is good at them.
const POOL_MIN: usize = 1 << 12;

/// Buffers from this size on have mappings of their own.
const MAP_MIN: usize = 4 << 20;

/// Freed memory, as long as it and what is in use are no more than what was in use at the same time once: beyond that,
/// what was freed longest ago goes back to the system. A step that is like the one before needs nothing from it.
struct Pool {
    /// By capacity: when it was freed (a counter), and the block; oldest first.
    free: BTreeMap<usize, Vec<(u64, Block)>>,
    bytes: usize,
    frees: u64,
    /// In use now, and at most.
    used: usize,
    peak: usize,
}

/// A pool that threads share.
#[derive(Clone)]
pub(crate) struct BufferPool(Arc<Mutex<Pool>>);

/// The pool of all threads that have none of their own.
static COMMON: LazyLock<BufferPool> = LazyLock::new(BufferPool::new);

thread_local! {
    /// The pool from which this thread takes buffers, if that is not the common one.
    static OWN: OnceCell<BufferPool> = const { OnceCell::new() };
}

impl BufferPool {
    pub(crate) fn new() -> BufferPool {
        let pool = Pool { free: BTreeMap::new(), bytes: 0, frees: 0, used: 0, peak: 0 };
        BufferPool(Arc::new(Mutex::new(pool)))
    }

    /// The pool of this thread.
    fn of_thread() -> BufferPool {
        OWN.with(|own| own.get().unwrap_or_else(|| &COMMON).clone())
    }

    /// Makes this pool that of this thread, for as long as the thread lives.
    pub(crate) fn own_by_thread(&self) {
        OWN.with(|own| {
            own.get_or_init(|| self.clone());
        });
    }

    fn take(&self, capacity: usize) -> Option<Block> {
        let mut pool = self.0.lock().ok()?;
        pool.used += capacity;
        pool.peak = pool.peak.max(pool.used);
        let block = pool.free.get_mut(&capacity).and_then(Vec::pop);
        if block.is_some() {
            pool.bytes -= capacity;
        }
        let evicted = pool.evict_surplus();
        drop(pool);
        drop(evicted); // after the lock
        block.map(|(_, block)| block)
    }

    fn give(&self, block: Block) {
        let Ok(mut pool) = self.0.lock() else { return };
        pool.used -= block.capacity;
        pool.bytes += block.capacity;
        pool.frees += 1;
        let freed = pool.frees;
        pool.free.entry(block.capacity).or_default().push((freed, block));
        let evicted = pool.evict_surplus();
        drop(pool);
        drop(evicted); // after the lock
    }

    fn trim(&self) {
        if let Ok(mut pool) = self.0.lock() {
            pool.free.clear();
            pool.bytes = 0;
            pool.peak = pool.used;
        }
    }
}

impl Pool {
    /// Takes out what is too much.
    fn evict_surplus(&mut self) -> Vec<Block> {
        let mut evicted = Vec::new();
        while self.used + self.bytes > self.peak.max(POOL_BYTES)
            && let Some(block) = self.evict()
        {
            evicted.push(block);
        }
        evicted
    }

    /// Takes out the block that was freed longest ago.
    fn evict(&mut self) -> Option<Block> {
        let oldest = |blocks: &&mut Vec<(u64, Block)>| blocks.first().map_or(u64::MAX, |block| block.0);
        let blocks = self.free.values_mut().min_by_key(oldest)?;
        let (_, block) = (!blocks.is_empty()).then(|| blocks.remove(0))?;
        self.bytes -= block.capacity;
        Some(block)
    }
}

/// An owned allocation: initialised from birth, so stale bytes are still bytes.
struct Block {
    ptr: NonNull<u8>,
    capacity: usize,
    /// What it lies in, if it is large; else the heap.
    map: Option<MmapMut>,
}

// SAFETY: a Block is plain owned memory with no thread affinity.
unsafe impl Send for Block {}
// SAFETY: shared access to a Block only reads.
unsafe impl Sync for Block {}

impl Block {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGN).expect("a buffer's size fits in isize")
    }

    fn new(capacity: usize) -> Block {
        if capacity >= MAP_MIN
            && let Some(block) = Block::map(capacity)
        {
            return block;
        }
        let layout = Self::layout(capacity);
        // SAFETY: `with_slack` makes capacity SLACK at least, so the layout is not empty.
        let ptr = unsafe { alloc_zeroed(layout) };
        let Some(ptr) = NonNull::new(ptr) else { handle_alloc_error(layout) };
        Block { ptr, capacity, map: None }
    }

    /// Memory of its own, in pages of 2 MiB where the system has them: a matrix spans too many small ones for the
    /// CPU's page tables (5 to 10% of a product's time).
    fn map(capacity: usize) -> Option<Block> {
        let mut map = MmapMut::map_anon(capacity).ok()?;
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage); // a wish, which the system may ignore
        let ptr = NonNull::new(map.as_mut_ptr())?;
        Some(Block { ptr, capacity, map: Some(map) })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.map.is_none() {
            // SAFETY: allocated in `new` with this very layout.
            unsafe { dealloc(self.ptr.as_ptr(), Self::layout(self.capacity)) }
        }
    }
}

/// A 64-byte aligned run of bytes. Contents are unspecified until written.
pub struct Buffer {
    block: Option<Block>,
    len: usize,
    /// The pool that its block goes back to.
    pool: Option<BufferPool>,
}

impl Buffer {
    /// `len` bytes of unspecified contents.
    ///
    /// # Panics
    /// If no memory can be so large (about `isize::MAX` bytes), as all constructors do.
    pub fn uninit(len: usize) -> Buffer {
        let capacity = size_class(with_slack(len));
        let pool = (capacity >= POOL_MIN).then(BufferPool::of_thread);
        let reused = pool.as_ref().and_then(|pool| pool.take(capacity));
        Buffer { block: Some(reused.unwrap_or_else(|| Block::new(capacity))), len, pool }
    }

    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Buffer {
        let mut buffer = Buffer::uninit(len);
        buffer.as_mut_slice::<u8>().fill(0);
        buffer
    }

    /// Memory that is kept for long: exactly sized, never from the pool.
    pub fn exact(len: usize) -> Buffer {
        Buffer { block: Some(Block::new(with_slack(len).next_multiple_of(ALIGN))), len, pool: None }
    }

    fn block(&self) -> &Block {
        self.block.as_ref().expect("a live buffer has its block")
    }

    /// The whole buffer as elements, of an alignment of at most 64 bytes (checked when this is compiled).
    pub fn as_slice<T: AnyBitPattern>(&self) -> &[T] {
        let count = self.len / const { element_size::<T>() };
        // SAFETY: the block is initialised, aligned for T, at least `len` bytes, and T takes any bits.
        unsafe { std::slice::from_raw_parts(self.block().ptr.as_ptr().cast(), count) }
    }

    /// The whole buffer as elements to write, of an alignment of at most 64 bytes.
    pub fn as_mut_slice<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        let count = self.len / const { element_size::<T>() };
        // SAFETY: as in `as_slice`, and `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.block().ptr.as_ptr().cast(), count) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let (Some(block), Some(pool)) = (self.block.take(), &self.pool) {
            pool.give(block);
        }
    }
}

/// The size of a type that a buffer can hold.
const fn element_size<T>() -> usize {
    assert!(size_of::<T>() > 0, "an element has a size");
    assert!(align_of::<T>() <= ALIGN, "an element's alignment is at most a buffer's");
    size_of::<T>()
}

/// `len` and the slack, where that can be a block's size: then no rounding up below overflows.
fn with_slack(len: usize) -> usize {
    // An eighth of the largest power of two is left for `size_class`.
    const MAX: usize = isize::MAX as usize / 8 * 7 - SLACK;
    assert!(len <= MAX, "a buffer of {len} bytes: expected at most {MAX}");
    len + SLACK
}

/// Sizes are rounded up to an eighth of their power of two, so that near sizes share memory.
fn size_class(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 8).max(ALIGN);
    bytes.next_multiple_of(step)
}

/// Gives the memory that this thread's pool keeps back to the system (between the stages of a pipeline, say).
pub fn trim_pool() {
    BufferPool::of_thread().trim();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer is aligned and as long as asked for, whichever way it was had.
    #[test]
    fn aligned_and_sized() {
        for len in [0, 1, 63, 4096, 1 << 20, (1 << 20) + 12] {
            for buffer in [Buffer::uninit(len), Buffer::zeroed(len), Buffer::exact(len)] {
                assert_eq!(buffer.as_slice::<u8>().len(), len);
                assert_eq!(buffer.as_slice::<u8>().as_ptr() as usize % ALIGN, 0);
            }
        }
    }

    /// A full pool makes room for what is freed now, and keeps to its limit.
    #[test]
    fn the_pool_forgets_the_oldest() {
        for i in 0..20 {
            drop(Buffer::uninit((i + 1) * (POOL_BYTES / 64)));
        }
        let mut buffer = Buffer::uninit(POOL_BYTES / 2);
        buffer.as_mut_slice::<u8>()[0] = 1;
        let address = buffer.as_slice::<u8>().as_ptr();
        drop(buffer);
        let pool = COMMON.0.lock().unwrap();
        assert!(pool.used + pool.bytes <= pool.peak.max(POOL_BYTES));
        drop(pool);
        assert_eq!(Buffer::uninit(POOL_BYTES / 2).as_slice::<u8>().as_ptr(), address);
        trim_pool();
    }

    /// Protects pipelines from each other: what a thread with a pool of its own frees, and trims, is that pool's alone.
    #[test]
    fn pools_are_apart() {
        let (mine, other) = (BufferPool::new(), BufferPool::new());
        let kept = |pool: &BufferPool| pool.0.lock().unwrap().bytes;
        let on_thread = |pool: &BufferPool, f: fn()| {
            let pool = pool.clone();
            let run = move || {
                pool.own_by_thread();
                f();
            };
            std::thread::spawn(run).join().unwrap();
        };
        on_thread(&mine, || drop(Buffer::uninit(1 << 16)));
        on_thread(&other, || drop(Buffer::uninit(1 << 17)));
        assert!(kept(&mine) >= 1 << 16 && kept(&mine) < 1 << 17 && kept(&other) >= 1 << 17);
        on_thread(&mine, trim_pool);
        assert!(kept(&mine) == 0 && kept(&other) >= 1 << 17);
    }

    /// A size that would wrap around is refused by every constructor, before any memory is taken.
    #[test]
    fn sizes_that_no_memory_has() {
        for len in [usize::MAX, usize::MAX - 10, usize::MAX - SLACK, isize::MAX as usize, usize::MAX / 2 + 1]
        {
            for new in [Buffer::uninit, Buffer::zeroed, Buffer::exact] {
                let refused = std::panic::catch_unwind(|| drop(new(len))).expect_err("such a buffer");
                let said = refused.downcast_ref::<String>().expect("a message");
                assert!(said.starts_with(&format!("a buffer of {len} bytes: expected at most")), "{said}");
            }
        }
    }

    /// Zeroed memory is zero also when the pool hands out used memory.
    #[test]
    fn zeroed_after_reuse() {
        Buffer::uninit(1 << 18).as_mut_slice::<u8>().fill(7);
        assert!(Buffer::zeroed(1 << 18).as_slice::<u8>().iter().all(|&b| b == 0));
    }
}
