//! Products and convolutions against their definitions, at sizes that leave tails everywhere.

mod common;

use calotype_tensor::ops::{self, Conv, ConvArgs, LinearArgs, Padding};
use calotype_tensor::{DType, Device, Tensor, Weight, WeightBytes};

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn close(found: &[f32], want: &[f64], tolerance: f64) {
    let scale = want.iter().fold(1e-3, |m: f64, x| m.max(x.abs()));
    for (i, (f, w)) in found.iter().zip(want).enumerate() {
        assert!((*f as f64 - w).abs() <= tolerance * scale, "element {i}: {f}, expected {w}");
    }
}

/// x Wᵀ + bias + residual, for weights kept in each dtype, and all in bf16. The last rows lie whole pages apart.
#[test]
fn linear_is_the_product() {
    for (m, k, n) in [(1, 1, 1), (7, 24, 40), (97, 300, 72), (193, 64, 520), (5, 513, 33), (45, 2048, 96)] {
        let (x, w) = (noise(m * k, 1), noise(n * k, 2));
        let (bias, residual) = (noise(n, 3), noise(m * n, 4));
        let mut want = vec![0.0f64; m * n];
        for (i, want) in want.iter_mut().enumerate() {
            let (row, column) = (i / n, i % n);
            let dot: f64 = (0..k).map(|i| x[row * k + i] as f64 * w[column * k + i] as f64).sum();
            *want = dot + bias[column] as f64 + residual[i] as f64;
        }
        let bytes: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
        for (dtype, store, tolerance) in [
            (DType::F32, DType::F32, 1e-6),
            (DType::F32, DType::F16, 1e-3),
            (DType::F32, DType::BF16, 5e-3),
            (DType::BF16, DType::BF16, 1e-2),
        ] {
            let weight = Weight::new(&bytes, DType::F32, [n, k, 1, 1], store, Device::Cpu);
            let tensor = |values: &[f32], shape: &[usize]| Tensor::from_slice(values, shape).to_dtype(dtype);
            let (x, bias, residual) = (tensor(&x, &[m, k]), tensor(&bias, &[n]), tensor(&residual, &[m, n]));
            let y = ops::linear(
                &x,
                &weight,
                LinearArgs { bias: Some(&bias), residual: Some(&residual), ..LinearArgs::default() },
            );
            close(&y.to_vec(), &want, tolerance * (k as f64).sqrt().max(4.0));
        }
    }
}

/// A weight's bytes somewhere in a file.
struct At(Vec<u8>, usize);

impl WeightBytes for At {
    fn bytes(&self) -> &[u8] {
        &self.0[self.1..]
    }
}

/// Weights that are packed later, or never, give the same bytes as packed ones, at whatever address the file has them.
#[test]
fn streamed_and_lazy_weights_are_weights() {
    let (m, k, n) = (37, 331, 45);
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for x_dtype in [DType::F32, DType::BF16] {
            for offset in [0, 1, 4] {
                let w = noise(n * k, 2);
                let mut bytes = vec![0; offset];
                for x in &w {
                    match dtype {
                        DType::F32 => bytes.extend(x.to_le_bytes()),
                        DType::F16 => bytes.extend(half::f16::from_f32(*x).to_le_bytes()),
                        DType::BF16 => bytes.extend(half::bf16::from_f32(*x).to_le_bytes()),
                    }
                }
                let x = Tensor::from_slice(&noise(m * k, 1), &[m, k]).to_dtype(x_dtype).var();
                let packed = Weight::new(&bytes[offset..], dtype, [n, k, 1, 1], dtype, Device::Cpu);
                let lazy = Weight::lazy(
                    Box::new(At(bytes.clone(), offset)),
                    dtype,
                    [n, k, 1, 1],
                    dtype,
                    Device::Cpu,
                );
                let streamed = Weight::streamed(Box::new(At(bytes, offset)), dtype, [n, k], Device::Cpu);
                let results = [packed, lazy, streamed].map(|w| {
                    let y = ops::linear(&x, &w, LinearArgs::default());
                    let dx = y.backward().take(&x).expect("x has a gradient");
                    (y.to_vec(), dx.to_vec())
                });
                assert!(
                    results[1..].iter().all(|r| *r == results[0]),
                    "{dtype:?} times {x_dtype:?} at {offset}"
                );
            }
        }
    }
}

/// Protects training of a whole network from its file: what trains has the file's numbers, in f32, whatever the weight was to be
/// stored as and whether products read the file; and takes its steps.
#[test]
fn what_trains_has_the_files_numbers() {
    let (n, k) = (37, 21);
    let w: Vec<half::f16> = noise(n * k, 2).into_iter().map(half::f16::from_f32).collect();
    let bytes: Vec<u8> = w.iter().flat_map(|x| x.to_le_bytes()).collect();
    let wide: Vec<f32> = w.iter().map(|x| x.to_f32()).collect();
    let at = || Box::new(At(bytes.clone(), 0));
    let lazy = |store| Weight::lazy(at(), DType::F16, [n, k, 1, 1], store, Device::Cpu);
    let streamed = Weight::streamed(at(), DType::F16, [n, k], Device::Cpu);
    for weight in [lazy(DType::BF16), lazy(DType::F32), streamed] {
        let read = ops::linear(&Tensor::zeros(&[1, k], DType::F32), &weight, LinearArgs::default());
        assert_eq!(read.f32s(), vec![0.0; n]);
        let mut trained = weight.clone().var();
        assert_eq!(trained.values().f32s(), wide);
        let kept = trained.clone();
        trained.step(0.5, &Tensor::full(&[], 2.0, DType::F32), &Tensor::from_slice(&wide, &[n, k]));
        assert_eq!(trained.values().f32s(), wide.iter().map(|x| x * -1.5).collect::<Vec<_>>());
        assert_eq!(kept.values().f32s(), wide, "a clone keeps what it has");
    }
}

/// A 3 × 3 convolution, stride 1 and 2 and both paddings.
#[test]
fn conv_is_the_convolution() {
    check_conv([2, 9, 7, 5, 34]);
}

/// Sizes at which Winograd's algorithm takes over, with tiles that reach over the edges.
#[test]
fn large_conv_is_the_convolution() {
    check_conv([2, 34, 45, 48, 40]);
    check_conv([1, 101, 102, 33, 35]);
}

/// Protects Winograd's algorithm on weights as files have them: a convolution and its gradient are, to the bit, those of the same
/// weights in f32, for sizes that do not fill panels.
#[test]
fn large_conv_of_stored_weights() {
    let [b, h, w, i, o] = [2, 14, 13, 70, 37];
    let k = Tensor::from_slice(&noise(o * i * 9, 2), &[o, i, 3, 3]).to_dtype(DType::BF16);
    let x = Tensor::from_slice(&noise(b * h * w * i, 1), &[b, h, w, i]).var();
    let results = [DType::F32, DType::BF16, DType::F16].map(|store| {
        let bytes: Vec<u8> = k.to_vec().iter().flat_map(|x| x.to_le_bytes()).collect();
        let weight = Weight::new(&bytes, DType::F32, [o, i, 3, 3], store, Device::Cpu);
        let y = ops::conv2d(&x, &weight, Conv { stride: 1, padding: Padding::Same }, ConvArgs::default());
        (y.to_vec(), y.backward().take(&x).expect("x has a gradient").to_vec())
    });
    assert!(results[0] == results[1], "bf16");
    assert!(results[0] == results[2], "f16");
}

fn check_conv([b, h, w, i, o]: [usize; 5]) {
    let (x, k) = (noise(b * h * w * i, 1), noise(o * i * 9, 2));
    let (bias, shift) = (noise(o, 5), noise(b * o, 6));
    for (stride, padding, pad, extra) in
        [(1, Padding::Same, 1, 2), (2, Padding::Same, 1, 2), (2, Padding::BottomRight, 0, 1)]
    {
        let (ho, wo) = ((h + extra - 3) / stride + 1, (w + extra - 3) / stride + 1);
        let mut want = vec![0.0f64; b * ho * wo * o];
        for (index, want) in want.iter_mut().enumerate() {
            let (out, at) = (index % o, index / o);
            let (image, y, xx) = (at / (ho * wo), at / wo % ho, at % wo);
            *want = (bias[out] + shift[image * o + out]) as f64;
            for tap in 0..9 {
                let (sy, sx) = (y * stride + tap / 3, xx * stride + tap % 3);
                if sy < pad || sx < pad || sy - pad >= h || sx - pad >= w {
                    continue;
                }
                let pixel = (image * h + sy - pad) * w + sx - pad;
                for c in 0..i {
                    *want += x[pixel * i + c] as f64 * k[(out * i + c) * 9 + tap] as f64;
                }
            }
        }
        let weight = Weight::from_tensor(&Tensor::from_slice(&k, &[o, i, 3, 3]));
        let y = ops::conv2d(
            &Tensor::from_slice(&x, &[b, h, w, i]),
            &weight,
            Conv { stride, padding },
            ConvArgs {
                bias: Some(&Tensor::from_slice(&bias, &[o])),
                shift: Some(&Tensor::from_slice(&shift, &[b, o])),
                ..ConvArgs::default()
            },
        );
        assert_eq!(y.shape(), [b, ho, wo, o]);
        close(y.f32s(), &want, 1e-5);
        check_conv_gradient([b, h, w, i, o], &k, Conv { stride, padding }, [ho, wo]);
    }
}

/// The gradient of the inputs, each pixel's from all windows that hold it.
fn check_conv_gradient([b, h, w, i, o]: [usize; 5], k: &[f32], conv: Conv, [ho, wo]: [usize; 2]) {
    let dy = noise(b * ho * wo * o, 9);
    let pad = if conv.padding == Padding::Same { 1 } else { 0 };
    let mut want = vec![0.0f64; b * h * w * i];
    for (at, dy) in dy.chunks_exact(o).enumerate() {
        let (image, y, x) = (at / (ho * wo), at / wo % ho, at % wo);
        for tap in 0..9 {
            let (sy, sx) = (y * conv.stride + tap / 3, x * conv.stride + tap % 3);
            if sy < pad || sx < pad || sy - pad >= h || sx - pad >= w {
                continue;
            }
            let pixel = (image * h + sy - pad) * w + sx - pad;
            for (c, want) in want[pixel * i..(pixel + 1) * i].iter_mut().enumerate() {
                let terms =
                    dy.iter().enumerate().map(|(out, dy)| *dy as f64 * k[(out * i + c) * 9 + tap] as f64);
                *want += terms.sum::<f64>();
            }
        }
    }
    let x = Tensor::zeros(&[b, h, w, i], DType::F32).var();
    let weight = Weight::from_tensor(&Tensor::from_slice(k, &[o, i, 3, 3]));
    let y = ops::conv2d(&x, &weight, conv, ConvArgs::default());
    let mut dx = None;
    y.backward_with(Tensor::from_slice(&dy, y.shape()), &mut |_, gradient| dx = Some(gradient));
    close(dx.expect("x has a gradient").f32s(), &want, 1e-5);
}

/// softmax(q kᵀ / √d) v, for head sizes and lengths that fit no block.
#[test]
fn attention_is_the_definition() {
    for (batch, t, s, heads, d) in
        [(2, 37, 77, 3, 40), (1, 300, 520, 2, 64), (1, 5, 9, 1, 512), (1, 50, 50, 2, 8)]
    {
        let width = heads * d;
        let (q, k, v) =
            (noise(batch * t * width, 1), noise(batch * s * width, 2), noise(batch * s * width, 3));
        let mut want = vec![0.0f64; batch * t * width];
        for (b, h, i) in (0..batch * heads * t).map(|n| (n / (heads * t), n / t % heads, n % t)) {
            let at = |row: usize| row * width + h * d;
            let score = |j: usize| -> f64 {
                let (q, k) = (&q[at(b * t + i)..][..d], &k[at(b * s + j)..][..d]);
                q.iter().zip(k).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>() / (d as f64).sqrt()
            };
            let weights: Vec<f64> = (0..s).map(|j| score(j).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for c in 0..d {
                let value = |j: usize| v[at(b * s + j) + c] as f64 * weights[j];
                want[at(b * t + i) + c] = (0..s).map(value).sum::<f64>() / sum;
            }
        }
        let tensor = |x: &[f32], rows: usize| Tensor::from_slice(x, &[batch, rows, width]);
        let y = ops::attention(&tensor(&q, t), &tensor(&k, s), &tensor(&v, s), heads, ops::Mask::None);
        close(y.f32s(), &want, 1e-5);
    }
}

/// All of the above with every instruction set of this CPU.
#[test]
fn every_isa() {
    common::rerun_for_every_isa("every_isa");
}
