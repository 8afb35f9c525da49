//! Times the kernels on SDXL's shapes: `cargo run --release --example peak`.

use std::time::Instant;

use calotype_tensor::ops::{self, Conv, ConvArgs, LinearArgs, Padding};
use calotype_tensor::{DType, Device, Tensor, Weight};

/// Seconds that this process's threads ran: unlike wall time, little disturbed by other processes.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = tasks.filter_map(|task| {
        let line = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split(' ').next()?.parse::<u64>().ok()
    });
    nanos.sum::<u64>() as f64 / 1e9
}

/// Median wall and processor seconds of `runs` runs.
fn time(runs: usize, mut f: impl FnMut()) -> [f64; 2] {
    f();
    let mut seconds: Vec<[f64; 2]> = (0..runs)
        .map(|_| {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            f();
            [start.elapsed().as_secs_f64(), cpu_seconds() - cpu]
        })
        .collect();
    seconds.sort_by(|a, b| a[1].total_cmp(&b[1]));
    seconds[runs / 2]
}

fn report(name: &str, flop: f64, [wall, cpu]: [f64; 2]) {
    let gflops = |seconds: f64| flop / seconds / 1e9;
    eprintln!("{name:34} {:9.2} ms {:6.1} GFLOP/s, {:6.1} a core", wall * 1e3, gflops(wall), gflops(cpu));
}

fn main() {
    let dtype = if std::env::args().any(|a| a == "bf16") { DType::BF16 } else { DType::F32 };
    let store = if std::env::args().any(|a| a == "f16") { DType::F16 } else { dtype };
    for (m, k, n) in [
        (2048, 2048, 2048),
        (2048, 640, 5120),
        (512, 1280, 10240),
        (512, 5120, 1280),
        (8192, 320, 320),
        (154, 2048, 1280),
        (2, 1280, 1280),
    ] {
        let x = Tensor::full(&[m, k], 0.5, dtype);
        let w = Weight::new(&vec![0; n * k * 2], DType::BF16, [n, k, 1, 1], store, Device::Cpu);
        let s = time(9, || drop(ops::linear(&x, &w, LinearArgs::default())));
        report(&format!("linear {m} {k} {n}"), 2.0 * (m * k * n) as f64, s);
    }
    for (b, h, i, o) in [(2, 32, 640, 640), (2, 64, 320, 320), (2, 16, 1280, 1280), (1, 256, 256, 256)] {
        let x = Tensor::full(&[b, h, h, i], 0.5, dtype);
        let w = Weight::new(&vec![0; o * i * 18], DType::BF16, [o, i, 3, 3], store, Device::Cpu);
        let conv = Conv { stride: 1, padding: Padding::Same };
        let s = time(5, || drop(ops::conv2d(&x, &w, conv, ConvArgs::default())));
        report(&format!("conv 3x3 {b} {h}x{h} {i} {o}"), 18.0 * (b * h * h * i * o) as f64, s);
    }
    for (b, t, s, heads, d) in
        [(2, 1024, 1024, 10, 64), (2, 256, 256, 20, 64), (2, 1024, 77, 10, 64), (1, 4096, 4096, 1, 512)]
    {
        let q = Tensor::full(&[b, t, heads * d], 0.5, dtype);
        let k = Tensor::full(&[b, s, heads * d], 0.5, dtype);
        let seconds = time(5, || drop(ops::attention(&q, &k, &k, heads, ops::Mask::None)));
        report(&format!("attention {b} {t} {s} {heads} {d}"), 4.0 * (b * t * s * heads * d) as f64, seconds);
    }
}
