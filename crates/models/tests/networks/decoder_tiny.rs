use calotype_models::DecoderTiny;
use calotype_tensor::{Tensor, ops};

use crate::{F32, Golden, assert_close, folder};

const NAME: &str = "autoencoder_tiny";

/// Pictures are those of diffusers, `scaling_factor` and the clamp of large latents included.
#[test]
fn decoder_tiny() {
    let (golden, decoder) = (Golden::load(NAME), DecoderTiny::open(&folder(NAME)).unwrap());
    for i in 0..2 {
        let of = |name: &str| ops::slice_batch(golden.get(name), i, 1);
        assert_close("picture", &decoder.decode(&of("latents")), &of("pictures"), F32);
    }
}

/// Large latents are decoded in tiles: the picture is whole, and that of decoding at once far from the tiles' edges.
#[test]
fn decoder_tiny_in_tiles() {
    let decoder = DecoderTiny::open(&folder(NAME)).unwrap();
    let (width, cut) = (132, 90); // a tile of 128 columns, and a second one from column 96 on
    let values =
        |width: usize| (0..3 * width * 4).map(move |i| ((i % (4 * width) * 37) % 11) as f32 / 4.0 - 1.2);
    let latents = Tensor::from_vec(values(width).collect(), &[1, 3, width, 4]);
    let rows: Vec<f32> = latents.to_vec().chunks(4 * width).flat_map(|row| row[..4 * cut].to_vec()).collect();
    let part = decoder.decode(&Tensor::from_vec(rows, &[1, 3, cut, 4]));
    let whole = decoder.decode(&latents);
    assert_eq!(whole.shape(), [1, 24, 8 * width, 3]);
    let left = |picture: &Tensor| {
        let rows = picture.to_vec();
        let row = rows.chunks(3 * picture.dim(2)).flat_map(|row| row[..3 * 8 * 60].to_vec());
        Tensor::from_vec(row.collect(), &[24, 8 * 60, 3])
    };
    assert_close("left part", &left(&whole), &left(&part), F32);
}

/// A folder of another network is refused by the field that says so.
#[test]
fn another_network_is_refused() {
    let error = DecoderTiny::open(&folder("../pipeline/vae")).map(drop).unwrap_err().to_string();
    assert!(error.contains("_class_name: expected") && error.contains("AutoencoderTiny"), "{error}");
}
