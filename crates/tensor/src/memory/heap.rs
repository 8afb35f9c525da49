//! The C library's heap in a process that runs for days.

/// The size from which a block has a mapping of its own, and the free bytes at the heap's end that go back to the system: glibc's first values.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const BYTES: i32 = 128 << 10;
/// The heaps that threads share. glibc has up to 8 for each processor.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: i32 = 1;

/// Has the C library give freed memory back soon, from now on and for the whole process. Does nothing where it is not glibc.
///
/// By itself, glibc raises both limits each time that a larger block is freed, up to 32 and 64 MiB, and it may give each thread a heap of its own
/// (`mallopt(3)`). The requests of a service carry files. Its threads free their blocks, and glibc keeps more and more of them.
pub fn keep_heap_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in
        [(libc::M_MMAP_THRESHOLD, BYTES), (libc::M_TRIM_THRESHOLD, BYTES), (libc::M_ARENA_MAX, ARENAS)]
    {
        // SAFETY: mallopt takes two numbers, has a lock of its own, and ignores what it does not know.
        unsafe { libc::mallopt(parameter, value) };
    }
}
