//! Decodes pictures that are too large to decode at once, in tiles that overlap and are blended there. As
//! diffusers' `AutoencoderKL.tiled_decode`, with its overlap of a quarter.

use std::ops::Range;

use calotype_tensor::Tensor;

use super::Vae;

/// An f32 image (height, width, channels).
struct Canvas {
    height: usize,
    width: usize,
    channels: usize,
    pixels: Vec<f32>,
}

impl Canvas {
    fn empty(height: usize, width: usize, channels: usize) -> Canvas {
        Canvas { height, width, channels, pixels: vec![0.0; height * width * channels] }
    }

    fn row(&self, y: usize, x: Range<usize>) -> &[f32] {
        let at = y * self.width * self.channels;
        &self.pixels[at + x.start * self.channels..at + x.end * self.channels]
    }

    fn row_mut(&mut self, y: usize, x: Range<usize>) -> &mut [f32] {
        let at = y * self.width * self.channels;
        &mut self.pixels[at + x.start * self.channels..at + x.end * self.channels]
    }

    fn crop(&self, y: Range<usize>, x: Range<usize>) -> Canvas {
        let (height, width, channels) = (y.len(), x.len(), self.channels);
        let pixels = y.flat_map(|y| self.row(y, x.clone())).copied().collect();
        Canvas { height, width, channels, pixels }
    }
}

impl Vae {
    /// Whether latents (B, h, w, C) need more than one tile of `tile` × `tile` latents.
    pub fn needs_tiles(latents: &Tensor, tile: usize) -> bool {
        latents.dim(1) > tile || latents.dim(2) > tile
    }

    /// [`Self::decode`] of one image, in tiles, if the latents have more than one. Besides the picture, only one tile and the edges of
    /// a row of tiles are in memory.
    ///
    /// latents (1, h, w, C), divided by `scaling_factor` → (1, 8h, 8w, 3); of several tiles, f32. `tile` is a tile's height and width in latents,
    /// a multiple of 4. Neighbouring tiles overlap by a quarter. Each tile is normalised by itself, so the picture differs a
    /// little from one that is decoded at once.
    ///
    /// # Panics
    /// If there is more than one image, or `tile` is 0 or not a multiple of 4.
    pub fn decode_tiled(&self, latents: &Tensor, tile: usize) -> Tensor {
        assert_eq!(latents.dim(0), 1, "one image");
        assert!(tile > 0 && tile.is_multiple_of(4), "tiles overlap by a quarter");
        decode_in_tiles(latents, tile, &|latents| self.decode(latents))
    }
}

/// Decodes one image by `decode`, in tiles if there is more than one.
///
/// latents (1, h, w, C) → (1, s·h, s·w, c), for a decoder that makes s × s pixels of a latent. `tile` is a multiple of 4.
pub(crate) fn decode_in_tiles(latents: &Tensor, tile: usize, decode: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
    if !Vae::needs_tiles(latents, tile) {
        return decode(latents);
    }
    let (height, width) = (latents.dim(1), latents.dim(2));
    let step = tile * 3 / 4;
    let mut out: Option<Canvas> = None;
    let mut above: Vec<Canvas> = Vec::new(); // the lower edges of the row of tiles above
    for top in (0..height).step_by(step) {
        let mut edges = Vec::new();
        let mut left: Option<Canvas> = None; // the right edge of the tile on the left
        for (j, start) in (0..width).step_by(step).enumerate() {
            let rows = top..height.min(top + tile);
            let mut decoded = decode_tile(latents, rows.clone(), start..width.min(start + tile), decode);
            let scale = decoded.height / rows.len();
            let blend = tile * scale / 4;
            if let Some(edge) = above.get(j) {
                blend_down(edge, &mut decoded);
            }
            if let Some(edge) = &left {
                blend_right(edge, &mut decoded);
            }
            let (h, w) = (decoded.height, decoded.width);
            edges.push(decoded.crop(h - blend.min(h)..h, 0..w));
            left = Some(decoded.crop(0..h, w - blend.min(w)..w));
            let out =
                out.get_or_insert_with(|| Canvas::empty(height * scale, width * scale, decoded.channels));
            paste(&decoded, out, top * scale, start * scale, step * scale);
        }
        above = edges;
    }
    let out = out.expect("an image has a tile");
    latents.device().upload(&out.pixels, &[1, out.height, out.width, out.channels])
}

fn decode_tile(
    latents: &Tensor,
    y: Range<usize>,
    x: Range<usize>,
    decode: &dyn Fn(&Tensor) -> Tensor,
) -> Canvas {
    let (width, channels) = (latents.dim(2), latents.dim(3));
    let all = Canvas { height: latents.dim(1), width, channels, pixels: latents.to_vec() };
    let tile = all.crop(y, x);
    let shape = [1, tile.height, tile.width, channels];
    let tile = latents.device().upload(&tile.pixels, &shape);
    let image = decode(&tile.to_dtype(latents.dtype()));
    let [_, height, width, channels] = [0, 1, 2, 3].map(|i| image.dim(i));
    Canvas { height, width, channels, pixels: image.to_vec() }
}

/// Blends `a` into `b`: row or column `y` of the `extent` that overlap. The weight of `b` rises linearly from 0.
fn mix(a: &[f32], b: &mut [f32], y: usize, extent: usize) {
    let t = y as f32 / extent as f32;
    for (b, a) in b.iter_mut().zip(a) {
        *b = a * (1.0 - t) + *b * t;
    }
}

/// Blends the edge of the tile above (its last rows) into the first rows of a tile.
fn blend_down(edge: &Canvas, tile: &mut Canvas) {
    let extent = edge.height.min(tile.height);
    let columns = 0..tile.width.min(edge.width);
    for y in 0..extent {
        let from = edge.row(edge.height - extent + y, columns.clone());
        mix(from, tile.row_mut(y, columns.clone()), y, extent);
    }
}

/// Blends the edge of the tile on the left (its last columns) into the first columns of a tile.
fn blend_right(edge: &Canvas, tile: &mut Canvas) {
    let extent = edge.width.min(tile.width);
    for y in 0..tile.height.min(edge.height) {
        for x in 0..extent {
            let at = edge.width - extent + x;
            mix(edge.row(y, at..at + 1), tile.row_mut(y, x..x + 1), x, extent);
        }
    }
}

/// Copies the part of a tile that no later tile covers, `limit` pixels high and wide, into the picture.
fn paste(tile: &Canvas, out: &mut Canvas, top: usize, left: usize, limit: usize) {
    let width = limit.min(tile.width);
    for y in 0..limit.min(tile.height) {
        out.row_mut(top + y, left..left + width).copy_from_slice(tile.row(y, 0..width));
    }
}
