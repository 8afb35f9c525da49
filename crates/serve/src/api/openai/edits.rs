//! The parts of an edit: `image` or `image[]`, `mask`, and fields as text.

use axum::extract::Multipart;
use bytes::Bytes;
use image::DynamicImage;
use serde_json::{Map, Value};

use crate::api::refusal::Refusal;
use crate::api::{body, masks};

/// The most bytes of a field that is text: more than any prompt.
const MOST_TEXT: usize = 1 << 20;

/// An edit. Picture and mask are PNG files; of the mask, white is filled.
pub(super) struct Edit {
    pub fields: Map<String, Value>,
    pub image: Vec<u8>,
    pub mask: Option<Vec<u8>>,
    /// The pictures after the first, which are left out: chats send the pictures of several messages, the newest first.
    pub left_out: usize,
}

/// Reads an edit.
pub(super) async fn read(mut parts: Multipart) -> Result<Edit, Refusal> {
    let (mut fields, mut image, mut mask) = (Map::new(), None::<Bytes>, None::<Bytes>);
    let mut left_out = 0;
    while let Some(part) = parts.next_field().await.map_err(|e| body::broken_parts(&e))? {
        let name = part.name().unwrap_or_default().to_string();
        let bytes = part.bytes().await.map_err(|e| body::broken_parts(&e))?;
        match name.as_str() {
            "image" | "image[]" if image.is_some() => left_out += 1,
            "image" | "image[]" => image = Some(bytes),
            "mask" => mask = Some(bytes),
            _ if bytes.len() > MOST_TEXT => {
                return Err(Refusal::body(
                    &name,
                    format!("at most {MOST_TEXT} bytes, found {}", bytes.len()),
                ));
            }
            _ => {
                let text =
                    String::from_utf8(bytes.to_vec()).map_err(|_| Refusal::body(&name, "not UTF-8"))?;
                fields.insert(name, text.into());
            }
        }
    }
    let image = image.ok_or_else(|| Refusal::body("image", "required, but not given"))?;
    let decoded = tokio::task::spawn_blocking(move || decode(&image, mask.as_deref())).await;
    let (image, mask) = decoded
        .map_err(|e| Refusal::body("image", e.to_string()))?
        .map_err(|(field, problem)| Refusal::body(field, problem))?;
    Ok(Edit { fields, image, mask, left_out })
}

type Files = (Vec<u8>, Option<Vec<u8>>);

/// The picture without transparency, and the mask: of the mask's transparency, else of the picture's. A mask that is opaque is one in
/// black and white.
fn decode(image: &[u8], mask: Option<&[u8]>) -> Result<Files, (&'static str, String)> {
    let of = |field| move |problem| (field, problem);
    let image = masks::decode(image).map_err(of("image"))?;
    let mask = match mask.filter(|mask| !mask.is_empty()) {
        Some(mask) => {
            let mask = masks::decode(mask).map_err(of("mask"))?;
            Some(masks::of_transparency(&mask).unwrap_or_else(|| mask.to_luma8()))
        }
        None => masks::of_transparency(&image),
    };
    // What is transparent keeps its colours: they are what the picture had before it was erased.
    let image = masks::png(&image.to_rgb8().into()).map_err(of("image"))?;
    let mask = mask.map(|mask| masks::png(&DynamicImage::from(mask))).transpose().map_err(of("mask"))?;
    Ok((image, mask))
}
