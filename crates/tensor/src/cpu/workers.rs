//! Threads that compute.

use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::memory::BufferPool;

/// The bytes of a thread's stack, as many as a program's first thread has: whole programs run on these threads.
const STACK: usize = 8 << 20;

/// Threads, and a pool of the memory that they reuse. A computation in [`Workers::run`] waits for no other work of the process, and
/// neither takes nor trims the memory of other workers. Outside of it, ops use the threads of the rayon pool that the caller is in,
/// and one pool of memory for the process. A clone shares threads and memory.
///
/// ```
/// use calotype_tensor::{Tensor, cpu::Workers, ops};
///
/// let workers = Workers::new(2).expect("two threads");
/// let y = workers.run(|| ops::silu(&Tensor::from_slice(&[0.0], &[1])));
/// assert_eq!(y.to_vec(), [0.0]);
/// ```
#[derive(Clone)]
pub struct Workers {
    threads: Arc<ThreadPool>,
}

impl Workers {
    /// So many threads; 0: as many as `RAYON_NUM_THREADS` says, else as there are processors.
    ///
    /// # Errors
    /// The system does not give them.
    pub fn new(threads: usize) -> Result<Workers, ThreadPoolBuildError> {
        let pool = BufferPool::new();
        let builder = ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK);
        let threads = builder.start_handler(move |_| pool.own_by_thread()).build()?;
        Ok(Workers { threads: Arc::new(threads) })
    }

    /// Runs `f` on one of the threads, and waits for it.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.threads.install(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Buffer;

    /// Memory that workers freed is theirs: it comes back to them, and not to another's.
    #[test]
    fn workers_have_their_own_memory() {
        let [one, other] = [0, 1].map(|_| Workers::new(1).unwrap());
        let address = || Buffer::uninit(1 << 20).as_slice::<u8>().as_ptr() as usize;
        let first = one.run(address);
        assert_ne!(other.run(address), first);
        assert_eq!(one.run(address), first);
    }
}
