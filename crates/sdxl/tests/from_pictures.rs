//! Pictures made from pictures, and refined ones, against those that diffusers makes from the same folders.

mod plan;
mod temp;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use calotype_sdxl::pipeline::{EmptyNegative, Image, Options, Pipeline, Rng};
use calotype_sdxl::{Error, InputImage, InputMask, PredictPlan, Refine};
use calotype_tensor::DType;
use image::{GrayImage, RgbImage};
use safetensors::SafeTensors;
use serde_json::{Map, Value};
use temp::{Temp, copy, golden};

const SIZE: (u32, u32) = (64, 48);
const OPTIONS: Options = Options { dtype: DType::F32, rng: Rng::Cpu, empty_negative: EmptyNegative::Encode };

/// A golden case: its name, its request, and the bytes of its two pictures.
struct Case {
    name: String,
    mode: String,
    request: Map<String, Value>,
    images: Vec<u8>,
}

struct Goldens {
    image: InputImage,
    mask: InputMask,
    cases: Vec<Case>,
}

impl Goldens {
    fn read() -> Goldens {
        let bytes = std::fs::read(golden().join("from_pictures.safetensors")).expect("golden file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("golden header");
        let metadata: HashMap<String, String> =
            header.metadata().clone().expect("metadata").into_iter().collect();
        let file = SafeTensors::deserialize(&bytes).expect("golden file");
        let data = |name: &str| file.tensor(name).map(|tensor| tensor.data().to_vec());
        let case = |(name, request): (String, String)| {
            let mut request: Map<String, Value> = serde_json::from_str(&request).ok()?;
            let mode = request.remove("mode")?.as_str()?.to_owned();
            let images = data(&format!("{name}.images")).ok()?;
            Some(Case { name, mode, request, images })
        };
        let mut cases: Vec<Case> = metadata.into_iter().filter_map(case).collect();
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        let picture = RgbImage::from_raw(SIZE.0, SIZE.1, data("picture").expect("a picture"));
        let mask = GrayImage::from_raw(SIZE.0, SIZE.1, data("mask").expect("a mask"));
        Goldens {
            image: InputImage { name: "picture".into(), pixels: Arc::new(picture.expect("its size")) },
            mask: InputMask { name: "mask".into(), pixels: Arc::new(mask.expect("its size")) },
            cases,
        }
    }

    /// The plan of a case.
    fn plan(&self, mode: &str, request: &Map<String, Value>) -> PredictPlan {
        let painted = mode.starts_with("inpaint");
        PredictPlan {
            image: (painted || mode == "img2img").then(|| self.image.clone()),
            mask: painted.then(|| self.mask.clone()),
            refine: match mode {
                "expert" => Refine::ExpertEnsembleRefiner,
                "base_image" => Refine::BaseImageRefiner,
                _ => Refine::NoRefiner,
            },
            ..plan::plan(&request.clone().into())
        }
    }

    /// A small plan with the picture and the mask.
    fn small(&self) -> PredictPlan {
        let request = serde_json::json!({
            "prompt": "a photo", "width": 64, "height": 48, "num_inference_steps": 4, "seed": 3,
            "scheduler": "K_EULER_ANCESTRAL", "prompt_strength": 0.6,
        });
        self.plan("inpaint", request.as_object().expect("an object"))
    }
}

fn base() -> Pipeline {
    Pipeline::open(&golden().join("pipeline"), OPTIONS).expect("the golden folder opens")
}

fn with_refiner() -> Pipeline {
    base().with_refiner(&golden().join("refiner")).expect("the golden refiner opens")
}

/// The golden folder with a UNet of 9 channels.
fn inpainting_folder() -> Temp {
    let folder = copy(&golden().join("pipeline"));
    for file in ["config.json", "diffusion_pytorch_model.safetensors"] {
        let bytes = std::fs::read(golden().join("inpainting").join(file)).expect("a golden file");
        folder.write(&format!("unet/{file}"), bytes);
    }
    folder
}

fn predict(pipeline: &Pipeline, plan: &PredictPlan) -> Vec<Image> {
    pipeline.predict(plan, &mut |_| ControlFlow::Continue(())).expect("pictures")
}

fn refused(pipeline: &Pipeline, plan: &PredictPlan) -> String {
    let result = pipeline.predict(plan, &mut |_| ControlFlow::Continue(()));
    let error = result.err().expect("refused");
    assert!(!matches!(error, Error::Interrupted | Error::NotFinite));
    error.to_string()
}

/// Whether all pixels around a pixel are painted, so far that the picture is not mixed there.
fn is_inside(mask: &GrayImage, x: u32, y: u32) -> bool {
    let around = |i: u32, end: u32| i.saturating_sub(9)..(i + 10).min(end);
    around(y, SIZE.1).all(|y| around(x, SIZE.0).all(|x| mask.get_pixel(x, y).0[0] == 255))
}

/// Protects img2img, inpainting with UNets of 4 and 9 channels, and both ways to refine: samplers, strengths, the order of the random
/// numbers and batches are diffusers' own, within 1 of 255. Preserved pixels are the picture's own.
#[test]
fn pictures_equal_diffusers() {
    let goldens = Goldens::read();
    let folder = inpainting_folder();
    let inpainting = Pipeline::open(folder.path(), OPTIONS).expect("opens");
    let pipeline = with_refiner();
    assert!(goldens.cases.len() >= 16, "{} cases", goldens.cases.len());
    for Case { name, mode, request, images } in &goldens.cases {
        let plan = goldens.plan(mode, request);
        let found = predict(if mode == "inpaint9" { &inpainting } else { &pipeline }, &plan);
        let found: Vec<u8> = found.into_iter().flat_map(|image| image.rgb).collect();
        assert_eq!(found.len(), images.len(), "{name}");
        let own = goldens.image.pixels.as_raw();
        for (i, (a, b)) in found.iter().zip(images).enumerate() {
            let pixel = (i / 3 % (SIZE.0 * SIZE.1) as usize) as u32;
            let (x, y) = (pixel % SIZE.0, pixel / SIZE.0);
            if plan.mask.is_none() || is_inside(&goldens.mask.pixels, x, y) {
                assert!(a.abs_diff(*b) <= 1, "{name}: {a} at ({x}, {y}), expected {b}");
            } else if goldens.mask.pixels.get_pixel(x, y).0[0] == 0 {
                assert_eq!(*a, own[i % own.len()], "{name}: preserved, ({x}, {y})");
            }
        }
    }
}

/// Protects batches: a picture of a batch is the same picture alone, from a picture, with a mask, and refined.
#[test]
fn a_batch_is_its_pictures() {
    let goldens = Goldens::read();
    let folder = inpainting_folder();
    let inpainting = Pipeline::open(folder.path(), OPTIONS).expect("opens");
    let small = goldens.small();
    let plans = [
        (with_refiner(), PredictPlan { mask: None, ..small.clone() }),
        (inpainting, small.clone()),
        (with_refiner(), PredictPlan { refine: Refine::BaseImageRefiner, ..small.clone() }),
        (
            with_refiner(),
            PredictPlan { refine: Refine::ExpertEnsembleRefiner, high_noise_frac: 0.7, ..small },
        ),
    ];
    for (pipeline, plan) in plans {
        let batch = predict(&pipeline, &PredictPlan { num_outputs: 2, ..plan.clone() });
        let alone = predict(&pipeline, &PredictPlan { seed: plan.seed + 1, ..plan });
        assert_eq!(batch[1].rgb, alone[0].rgb);
        assert_ne!(batch[0].rgb, batch[1].rgb);
    }
}

/// Protects the ends of `high_noise_frac`: with 1 the base model makes the picture, with 0 the refiner does, which is the same whether
/// the base's steps would begin before it or not.
#[test]
fn fractions_of_all_and_nothing() {
    let goldens = Goldens::read();
    let small = PredictPlan { mask: None, ..goldens.small() };
    let expert = |high_noise_frac: f64| PredictPlan {
        refine: Refine::ExpertEnsembleRefiner,
        high_noise_frac,
        ..small.clone()
    };
    let pipeline = with_refiner();
    let plain = predict(&pipeline, &small).remove(0).rgb;
    assert_eq!(predict(&pipeline, &expert(1.0)).remove(0).rgb, plain);
    assert_eq!(predict(&base(), &expert(1.0)).remove(0).rgb, plain, "no refiner is needed");
    let refined = predict(&pipeline, &expert(0.0)).remove(0).rgb;
    assert_ne!(refined, plain);
    // The strength leaves the steps after 0.4 of the noise, so the base model has none.
    assert_eq!(predict(&pipeline, &expert(0.3)).remove(0).rgb, refined);
}

/// Protects preserved pixels when a refiner comes after inpainting.
#[test]
fn refined_pictures_keep_what_is_preserved() {
    let goldens = Goldens::read();
    for refine in [Refine::ExpertEnsembleRefiner, Refine::BaseImageRefiner] {
        let plan = PredictPlan { refine, ..goldens.small() };
        let made = predict(&with_refiner(), &plan).remove(0).rgb;
        let made = RgbImage::from_raw(SIZE.0, SIZE.1, made).expect("its size");
        for (x, y, mask) in goldens.mask.pixels.enumerate_pixels() {
            if mask.0[0] == 0 {
                assert_eq!(made.get_pixel(x, y), goldens.image.pixels.get_pixel(x, y));
            }
        }
    }
}

/// Protects previews: pictures are the same with them, whether a linear map or a small network decodes. Each step of each picture has one,
/// the refiner's steps too, and the preserved part is in it.
#[test]
fn previews_change_nothing() {
    let goldens = Goldens::read();
    let expert = PredictPlan {
        refine: Refine::ExpertEnsembleRefiner,
        high_noise_frac: 0.8,
        num_outputs: 2,
        ..goldens.small()
    };
    let base_image = PredictPlan { refine: Refine::BaseImageRefiner, mask: None, ..goldens.small() };
    let tiny = golden().join("models/autoencoder_tiny");
    for (plan, steps) in
        [(expert, [(0, 1), (1, 1), (0, 2), (1, 2)].as_slice()), (base_image, &[(0, 1), (0, 2), (0, 3)])]
    {
        let plain = predict(&with_refiner(), &plan);
        for pipeline in [with_refiner(), with_refiner().with_preview_vae(&tiny).expect("a decoder")] {
            let (mut told, mut last) = (Vec::new(), None);
            let made = pipeline.predict(&plan, &mut |step| {
                if let Some(preview) = step.preview {
                    told.push((preview.picture, preview.step));
                    last = Some(preview.decode());
                }
                ControlFlow::Continue(())
            });
            let made = made.expect("pictures");
            assert!(made.iter().zip(&plain).all(|(a, b)| a.rgb == b.rgb));
            assert_eq!(told, steps);
            assert_eq!(last.expect("a preview").dimensions(), SIZE);
        }
    }
}

/// Protects previews of inpainted pictures: the preserved part is the given picture's, from the first step on.
#[test]
fn previews_show_what_is_preserved() {
    let goldens = Goldens::read();
    let preserved = |pipeline: &Pipeline| {
        let mut corners = Vec::new();
        let made = pipeline.predict(&goldens.small(), &mut |step| {
            corners.extend(step.preview.map(|preview| {
                let picture = preview.decode();
                let kept = goldens.mask.pixels.enumerate_pixels().filter(|(x, y, _)| {
                    // Bilinear enlargement mixes neighbouring latents.
                    let around = |i: u32, end: u32| i.saturating_sub(8)..(i + 9).min(end);
                    around(*y, SIZE.1)
                        .all(|y| around(*x, SIZE.0).all(|x| goldens.mask.pixels.get_pixel(x, y).0[0] == 0))
                });
                kept.map(|(x, y, _)| *picture.get_pixel(x, y)).collect::<Vec<_>>()
            }));
            ControlFlow::Continue(())
        });
        made.expect("a picture");
        corners
    };
    let folder = inpainting_folder();
    for pipeline in [base(), Pipeline::open(folder.path(), OPTIONS).expect("opens")] {
        let corners = preserved(&pipeline);
        assert!(!corners[0].is_empty());
        assert!(corners.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// Protects guidance 1: the negative prompt is not computed.
#[test]
fn guidance_1_has_no_negative_prompt() {
    let goldens = Goldens::read();
    let plan = |negative: &str| PredictPlan {
        guidance_scale: 1.0,
        negative_prompt: negative.into(),
        mask: None,
        ..goldens.small()
    };
    let pipeline = base();
    assert_eq!(predict(&pipeline, &plan("a dog"))[0].rgb, predict(&pipeline, &plan(""))[0].rgb);
}

/// Protects against requests and models that do not go together: each is refused by name, before anything is loaded.
#[test]
fn what_does_not_fit_is_refused() {
    let goldens = Goldens::read();
    let small = goldens.small();
    let folder = inpainting_folder();
    let inpainting = Pipeline::open(folder.path(), OPTIONS).expect("opens");
    let alone = PredictPlan { image: None, mask: None, ..small.clone() };
    assert!(refused(&inpainting, &alone).starts_with("image: expected image and mask"));
    let unmasked = PredictPlan { mask: None, ..small.clone() };
    assert!(refused(&inpainting, &unmasked).starts_with("mask: expected image and mask"));
    let lone = PredictPlan { image: None, ..small.clone() };
    assert!(refused(&base(), &lone).starts_with("image: expected the picture that the mask is for"));
    let refined = PredictPlan { refine: Refine::BaseImageRefiner, ..small.clone() };
    assert!(refused(&base(), &refined).starts_with("refine: expected a refiner"));
    let few = PredictPlan { refine_steps: Some(3), ..refined.clone() };
    assert!(refused(&with_refiner(), &few).starts_with("refine_steps: expected at least 4"));
    let weak = PredictPlan { prompt_strength: 0.2, ..small };
    assert!(refused(&base(), &weak).contains("0.25"), "the least strength");
    let pocket = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pocket");
    let pocket = Pipeline::open(&pocket, OPTIONS).expect("opens");
    let error = pocket.with_preview_vae(&golden().join("models/autoencoder_tiny")).err().expect("refused");
    let expected = "preview_vae: expected a model for the same latents, 8 channels of 8 × 8 pixels, found 4 ";
    assert!(error.to_string().starts_with(expected), "{error}");
    let open = |folder: &std::path::Path| Pipeline::open(folder, OPTIONS).err().map(|e| e.to_string());
    let error = open(&golden().join("refiner")).expect("refused");
    assert!(error.starts_with("model: expected a base model (--refiner takes refiners)"), "{error}");
    let error = base().with_refiner(folder.path()).err().expect("refused").to_string();
    assert!(error.starts_with("refiner: expected a model that is not made for inpainting"), "{error}");
}
