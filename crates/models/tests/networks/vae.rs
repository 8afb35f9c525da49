use calotype_models::Vae;
use calotype_models::config::VaeConfig;
use calotype_models::weights::Network;
use calotype_tensor::{DType, Tensor, ops};

use crate::{BF16, F32, Golden, assert_close, check_gradients, folder, open};
use crate::{Param, train};

fn load(store: DType) -> Vae {
    Vae::load(&open("vae", Network::Vae, store), &VaeConfig::read(&folder("vae")).unwrap()).unwrap()
}

/// Picture to moments, and the encoder's stages, equal diffusers'.
#[test]
fn encode() {
    let (golden, vae) = (Golden::load("vae"), load(DType::F32));
    let image = golden.get("encode.image");
    let encoder = &vae.encoder;
    let mut x = encoder.down_blocks[0].forward(encoder.conv_in.forward(image));
    assert_close("down_blocks.0", &x, golden.get("mid.encoder.down_blocks.0"), F32);
    for block in &encoder.down_blocks[1..] {
        x = block.forward(x);
    }
    x = encoder.mid_block.forward(&x);
    assert_close("mid_block", &x, golden.get("mid.encoder.mid_block"), F32);
    assert_close("encoder", &encoder.forward(image), golden.get("mid.encoder"), F32);
    let moments = vae.encode(image);
    assert_close("mean", &moments.mean(), golden.get("encode.mean"), F32);
    assert_close("logvar", &moments.logvar(), golden.get("encode.logvar"), F32);
}

/// Large pictures: in strips of rows, the moments are those of encoding at once, also where strips do not divide the height.
#[test]
fn encode_in_rows() {
    let vae = load(DType::F32);
    for (height, width) in [(64, 48), (70, 41), (37, 64)] {
        let value = |i: usize| ((i * i) as f32 * 0.013).sin() * 0.6 + (i as f32 / 3000.0).cos() * 0.4;
        let pixels = (0..height * width * 3).map(value).collect();
        let image = Tensor::from_vec(pixels, &[1, height, width, 3]);
        let whole = vae.encode(&image).parameters;
        for at_once in [1, 200, 1000] {
            assert_close("rows", &vae.encode_in_rows(&image, at_once).parameters, &whole, F32);
        }
    }
}

/// A sample is mean + standard deviation · noise, and stays finite for any log variance.
#[test]
fn sample() {
    let moments =
        calotype_models::Moments { parameters: Tensor::from_vec(vec![1.0, 2.0, 0.0, 1000.0], &[1, 1, 1, 4]) };
    let sample = moments.sample(&Tensor::from_vec(vec![0.5, 1.0], &[1, 1, 1, 2])).to_vec();
    assert_eq!(sample[0], 1.5);
    assert!((sample[1] - (2.0 + 10f32.exp())).abs() < 0.1);
}

/// Latents to picture, and the decoder's stages, equal diffusers'; of odd sizes and a batch.
#[test]
fn decode() {
    let (golden, vae) = (Golden::load("vae"), load(DType::F32));
    let latents = golden.get("decode.latents");
    let decoder = &vae.decoder;
    let x = decoder.conv_in.forward(&vae.post_quant_conv.as_ref().unwrap().forward(latents));
    assert_close("conv_in", &x, golden.get("mid.decoder.conv_in"), F32);
    let x = decoder.mid_block.forward(&x);
    assert_close("mid_block", &x, golden.get("mid.decoder.mid_block"), F32);
    let x = decoder.up_blocks[0].forward(x);
    assert_close("up_blocks.0", &x, golden.get("mid.decoder.up_blocks.0"), F32);
    assert_close("out", &vae.decode(latents), golden.get("decode.out"), F32);
}

/// In bf16, and with f16 weights, the picture stays near: nothing overflows.
#[test]
fn narrow() {
    let golden = Golden::load("vae");
    let out = golden.get("decode.out");
    let latents = golden.get("decode.latents");
    assert_close("bf16", &load(DType::BF16).decode(&latents.to_dtype(DType::BF16)), out, BF16);
    assert_close("f16 weights", &load(DType::F16).decode(latents), out, 5e-3);
    let huge = ops::scale(latents, 1e4);
    let picture = load(DType::BF16).decode(&huge.to_dtype(DType::BF16));
    assert!(picture.to_vec().iter().all(|x| x.is_finite()), "large latents stay finite");
}

/// Every norm of the VAE has diffusers' epsilon: too small to show in the goldens, not in flat pictures.
#[test]
fn epsilons() {
    let vae = load(DType::F32);
    let mid = &vae.decoder.mid_block;
    let norms = [
        &vae.encoder.down_blocks[0].resnets[0].norm1,
        &vae.encoder.conv_norm_out,
        &mid.resnets[1].norm2,
        &mid.attention.as_ref().unwrap().group_norm,
        &vae.decoder.up_blocks[0].resnets[0].norm1,
        &vae.decoder.conv_norm_out,
    ];
    assert!(norms.iter().all(|norm| norm.eps == 1e-6));
}

/// Gradients of the encoder's input and parameters are PyTorch's.
#[test]
fn gradients_of_encode() {
    let (golden, vae) = (Golden::load("vae"), load(DType::F32));
    let weights = open("vae", Network::Vae, DType::F32);
    let values = |key: &str| weights.tensor(key, golden.get(&format!("encode.grad.{key}")).shape()).unwrap();
    let conv_in = train(Param::Weight(&vae.encoder.conv_in.weight), values("encoder.conv_in.weight"));
    let quant = &vae.quant_conv.as_ref().unwrap().weight;
    let quant = train(Param::Weight(quant), values("quant_conv.weight"));
    let image = golden.get("encode.image").clone().var();
    let parameters = vae.encode(&image).parameters;
    let leaves = [
        ("encode.dimage".to_string(), image),
        ("encode.grad.encoder.conv_in.weight".to_string(), conv_in),
        ("encode.grad.quant_conv.weight".to_string(), quant),
    ];
    check_gradients(&[(&parameters, golden.get("encode.dmoments"))], &leaves, &golden);
}

/// Gradients of the decoder's input and parameters are PyTorch's.
#[test]
fn gradients_of_decode() {
    let (golden, vae) = (Golden::load("vae"), load(DType::F32));
    let weights = open("vae", Network::Vae, DType::F32);
    let key = "decoder.conv_out.weight";
    let values = weights.tensor(key, golden.get("decode.grad.decoder.conv_out.weight").shape()).unwrap();
    let conv_out = train(Param::Weight(&vae.decoder.conv_out.weight), values);
    let latents = golden.get("decode.latents").clone().var();
    let out = vae.decode(&latents);
    let leaves = [
        ("decode.dlatents".to_string(), latents),
        ("decode.grad.decoder.conv_out.weight".to_string(), conv_out),
    ];
    check_gradients(&[(&out, golden.get("decode.dy"))], &leaves, &golden);
}

/// A picture decoded in overlapping tiles equals diffusers' (three by three tiles, the last ones cut short).
#[test]
fn tiled() {
    let (golden, vae) = (Golden::load("vae_tiled"), load(DType::F32));
    let latents = golden.get("latents");
    assert!(Vae::needs_tiles(latents, 8));
    assert_close("out", &vae.decode_tiled(latents, 8), golden.get("out"), F32);
}

/// What fits in one tile is decoded as it would be without tiles.
#[test]
fn one_tile() {
    let (golden, vae) = (Golden::load("vae_tiled"), load(DType::F32));
    let latents = golden.get("latents");
    assert!(!Vae::needs_tiles(latents, 20));
    let (once, tiled) = (vae.decode(latents), vae.decode_tiled(latents, 24));
    assert_eq!(tiled.to_vec(), once.to_vec());
}

/// Protects: a picture is the same bytes for any number of threads, in tiles as at once, and a batch is its pictures.
#[test]
fn the_same_bytes() {
    let (golden, vae) = (Golden::load("vae_tiled"), load(DType::F32));
    let latents = golden.get("latents");
    let decode = |tile: Option<usize>| match tile {
        Some(tile) => vae.decode_tiled(latents, tile).to_vec(),
        None => vae.decode(latents).to_vec(),
    };
    for tile in [None, Some(4), Some(8), Some(12)] {
        let once = decode(tile);
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            assert!(pool.install(|| decode(tile)) == once, "{tile:?}, {threads} threads");
        }
    }
    let other = ops::scale(latents, -0.5);
    let batch = vae.decode(&ops::cat_batch(&[latents, &other])).to_vec();
    assert!(batch == [vae.decode(latents).to_vec(), vae.decode(&other).to_vec()].concat());
}
