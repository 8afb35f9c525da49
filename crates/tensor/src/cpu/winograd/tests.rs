//! Tiles of each size beside the reference's convolution, of images and channels of any size, whether or not tiles pay there.

use super::*;
use crate::backend::{Activation, Backend};
use crate::common::noise;
use crate::memory::Device;
use crate::reference::Reference;

const DIRECTIONS: [Direction; 2] = [Direction::Forward, Direction::Backward];

/// A convolution of numbers that `dtype` has, by tiles and by the reference: of (batch, height, width, in, out), with an epilogue on
/// the way forward.
fn both<F: Tile>(direction: Direction, [batch, height, width, inp, out]: [usize; 5]) -> [Tensor; 2] {
    let dtype = F::E::DTYPE;
    let [from, to] = if direction == Direction::Forward { [inp, out] } else { [out, inp] };
    let tensor = |shape: &[usize], seed: u32| noise(shape, seed).to_dtype(dtype);
    let (x, weight) = (tensor(&[batch, height, width, from], 1), tensor(&[out, inp, 3, 3], 2).to_vec());
    let weight: &[u8] = bytemuck::cast_slice(&weight);
    let shape = [batch, height, width, to];
    let added = [tensor(&[to], 3), tensor(&[batch, to], 4), tensor(&shape, 5)];
    let epilogue = |added: &[Tensor; 3], f: &dyn Fn(&Epilogue) -> Tensor| {
        let [bias, shift, residual] = added.each_ref().map(Some);
        match direction {
            Direction::Forward => f(&Epilogue { bias, shift, act: Activation::None, residual }),
            Direction::Backward => f(&Epilogue::NONE),
        }
    };
    let found = epilogue(&added, &|epilogue| {
        let w = Packed::new(weight, DType::F32, out, inp, 9, dtype);
        Tensor::new(tiled::<F>(&x, &w, direction, epilogue), &shape, dtype)
    });
    let added = added.map(|x| x.to_device(Device::Reference));
    let want = epilogue(&added, &|epilogue| {
        let (input, x) = ([height, width], x.to_device(Device::Reference));
        let s = ConvShape { input, output: input, kernel: [3, 3], stride: 1, pad: [1, 1] };
        let w = Reference.pack(weight, DType::F32, [out, inp, 9], dtype);
        match direction {
            Direction::Forward => Reference.conv2d(&x, &w, s, epilogue),
            Direction::Backward => Reference.conv2d_dx(&x, &w, s),
        }
    });
    [found, want]
}

/// ‖found − want‖ / ‖want‖
fn relative_error([found, want]: [Tensor; 2]) -> f64 {
    let (found, want) = (found.to_vec(), want.to_vec());
    assert_eq!(found.len(), want.len());
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut found.iter().zip(&want).map(|(found, want)| found - want)) / norm(&mut want.iter().copied())
}

/// Fails where a relative error is above `most`, for images from 1 × 1 to 9 × 9 pixels and channels that fill no panel and no pair.
fn check<F: Tile>(most: f64) {
    for height in 1..=9 {
        for width in [1, 2, 5, 8, 9] {
            for [inp, out] in [[7, 5], [33, 40], [70, 35]] {
                for direction in DIRECTIONS {
                    let error = relative_error(both::<F>(direction, [2, height, width, inp, out]));
                    assert!(error < most, "{direction:?} {height} × {width}, {inp} → {out}: {error}");
                }
            }
        }
    }
}

/// Protects tiles of 4 × 4 pixels.
#[test]
fn tiles_of_four() {
    check::<F4>(1e-5);
}

/// Protects tiles of 2 × 2 pixels, which only CPUs that multiply bf16 have.
#[test]
fn tiles_of_two() {
    if isa().has_bf16() {
        check::<F2>(0.008);
    }
}

/// Protects the quality of bf16: with as many channels as SDXL has, the error is below 0.006, where rounding alone has 0.002.
#[test]
fn the_error_of_bf16() {
    if !isa().has_bf16() {
        return;
    }
    for direction in DIRECTIONS {
        let error = relative_error(both::<F2>(direction, [1, 12, 11, 320, 320]));
        assert!(error < 0.006, "{direction:?}: {error}");
    }
}

/// Protects images that have more tiles than are treated at once.
#[test]
fn more_tiles_than_a_strip() {
    let size = |side: usize| [3, side, side + 1, 9, 7];
    let error = relative_error(both::<F4>(Direction::Forward, size(54)));
    assert!(3 * 14 * 14 > strip::<F4>([9, 7]) && error < 1e-5, "{error}");
    if isa().has_bf16() {
        let error = relative_error(both::<F2>(Direction::Forward, size(220)));
        assert!(3 * 110 * 111 > strip::<F2>([9, 7]) && error < 0.008, "{error}");
    }
}

/// Protects the choice: bf16 alone takes tiles of 2 × 2 pixels, of images and channels of another size than f32's.
#[test]
fn sizes_from_which_tiles_pay() {
    let pays = |dtype: DType, store: DType, side: usize, channels: [usize; 2]| {
        let input = [side, side];
        let s = ConvShape { input, output: input, kernel: [3, 3], stride: 1, pad: [1, 1] };
        pays(&Tensor::meta(&[1, side, side, channels[0]], dtype), channels, store, s)
    };
    let native = isa().has_bf16();
    for (dtype, store) in [(DType::F32, DType::BF16), (DType::BF16, DType::F16), (DType::BF16, DType::BF16)] {
        let in_bf16 = native && (dtype, store) == (DType::BF16, DType::BF16);
        assert!(pays(dtype, store, 15, [64, 64]));
        assert_eq!(pays(dtype, store, 14, [64, 64]), !in_bf16, "49 tiles of 2 × 2, 16 of 4 × 4");
        assert_eq!(pays(dtype, store, 64, [63, 320]), !in_bf16);
        assert!(!pays(dtype, store, 12, [320, 320]) && !pays(dtype, store, 64, [320, 4]));
    }
}

/// All of the above with every instruction set of this CPU.
#[test]
fn every_isa() {
    let tests = [
        "tiles_of_four",
        "tiles_of_two",
        "the_error_of_bf16",
        "more_tiles_than_a_strip",
        "sizes_from_which_tiles_pay",
    ];
    for test in tests {
        crate::common::rerun_for_every_isa_of(&format!("cpu::winograd::tests::{test}"));
    }
}
