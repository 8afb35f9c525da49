//! The fields of a request → the input of each picture, and `info` of the answer.

use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, Number, Value, json};

use super::samplers::{self, Choice};
use crate::api::body;
use crate::api::refusal::Refusal;

/// The most pictures of a request.
const MOST: u64 = 16;

/// Their fields, ours, and their defaults where these differ from ours. Widths and heights have none: the model's own size is better than
/// the web UI's 512.
const FIELDS: [(&str, &str, Option<f64>); 6] = [
    ("prompt", "prompt", None),
    ("negative_prompt", "negative_prompt", None),
    ("steps", "num_inference_steps", None),
    ("cfg_scale", "guidance_scale", Some(7.0)),
    ("width", "width", None),
    ("height", "height", None),
];

/// What the answer calls a sampler that stands for another.
const APPROXIMATED: &str = "Approximated";

/// Fields for what there is not. They are refused when they are set.
const ABSENT: [&str; 9] = [
    "enable_hr",
    "tiling",
    "restore_faces",
    "styles",
    "script_name",
    "alwayson_scripts",
    "refiner_checkpoint",
    "subseed_strength",
    "firstpass_image",
];

/// Their name of one of our fields.
pub(super) fn theirs(ours: &str) -> &str {
    match ours {
        "prompt_strength" => "denoising_strength",
        "image" => "init_images",
        _ => FIELDS.iter().find(|(_, name, _)| *name == ours).map_or(ours, |(theirs, ..)| theirs),
    }
}

/// Whether a value is one that means that a field is not used, numbers and flags as text among them. A list or an object of such values is one too: scripts that are switched off
/// have arguments.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => matches!(value.as_str(), "" | "None" | "0" | "false" | "False"),
        Value::Array(values) => values.iter().all(is_empty),
        Value::Object(fields) => fields.values().all(is_empty),
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    input: Map<String, Value>,
    seed: u64,
    count: u64,
    batch_size: u64,
    sampler: Choice,
}

impl Request {
    /// Reads the fields. `with_image`: those of a picture count.
    pub(super) fn of_fields(fields: &Map<String, Value>, with_image: bool) -> Result<Request, Refusal> {
        if let Some(name) =
            ABSENT.iter().find(|name| fields.get(**name).is_some_and(|value| !is_empty(value)))
        {
            return Err(Refusal::body(name, "there is nothing of the kind here; leave the field out"));
        }
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let mut input = Map::new();
        for (theirs, ours, default) in FIELDS {
            let value = match theirs {
                "prompt" | "negative_prompt" => given(theirs).cloned(),
                _ => number(fields, theirs)?.or(default.map(|value| whole(value.into()))),
            };
            input.extend(value.map(|value| (ours.to_string(), value)));
        }
        if with_image {
            let strength = number(fields, "denoising_strength")?.unwrap_or(json!(0.75));
            input.insert("prompt_strength".into(), strength);
        }
        // An empty prompt is one; ours has a default.
        input.entry("prompt").or_insert_with(|| json!(""));
        let text = |name: &str| given(name).and_then(Value::as_str).unwrap_or_default();
        let sampler = [text("sampler_name"), text("sampler_index")]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or("Euler");
        let sampler = samplers::choice(sampler, text("scheduler"))?;
        input.insert("scheduler".into(), sampler.ours.into());
        input.insert("num_outputs".into(), json!(1));

        let batch_size = count(fields, "batch_size")?;
        let count = batch_size.saturating_mul(count(fields, "n_iter")?);
        if count > MOST {
            return Err(Refusal::body(
                "batch_size",
                format!("at most {MOST} pictures in all, found {count}"),
            ));
        }
        let seed = match number(fields, "seed")? {
            None => random_seed(),
            Some(seed) if seed.as_i64() == Some(-1) => random_seed(),
            Some(seed) => {
                let problem = || {
                    Refusal::body("seed", format!("expected an integer of at least 0, or -1, found {seed}"))
                };
                seed.as_u64().ok_or_else(problem)?
            }
        };
        Ok(Request { input, seed, count, batch_size, sampler })
    }

    /// Sets a field of the input.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.input.insert(name.into(), value);
    }

    /// A text of the input.
    pub(super) fn text(&self, name: &str) -> &str {
        self.input.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The input of each picture. Each has the seed of the one before, and 1 more.
    pub(super) fn inputs(&self) -> Vec<Map<String, Value>> {
        let with_seed = |seed: u64| {
            let mut input = self.input.clone();
            input.insert("seed".into(), json!(seed));
            input
        };
        self.seeds().into_iter().map(with_seed).collect()
    }

    /// The seed of each picture.
    pub(super) fn seeds(&self) -> Vec<u64> {
        (0..self.count).map(|i| self.seed.wrapping_add(i)).collect()
    }

    /// What the answer tells of the pictures that were made: their seeds, their infotexts, their width and height.
    pub(super) fn info(
        &self,
        seeds: &[u64],
        texts: &[String],
        (width, height): (u32, u32),
        model: &str,
    ) -> Value {
        let approximated = self.sampler.approximated.as_deref();
        let texts = texts.iter().map(|text| match approximated {
            Some(what) => format!("{text}, {APPROXIMATED}: {what}"),
            None => text.clone(),
        });
        let repeated = |value: &str| vec![value.to_string(); seeds.len()];
        let (prompt, negative) = (self.text("prompt"), self.text("negative_prompt"));
        json!({
            "prompt": prompt,
            "all_prompts": repeated(prompt),
            "negative_prompt": negative,
            "all_negative_prompts": repeated(negative),
            "seed": seeds.first().unwrap_or(&self.seed),
            "all_seeds": seeds,
            "subseed": 0,
            "all_subseeds": vec![0; seeds.len()],
            "subseed_strength": 0,
            "width": width,
            "height": height,
            "sampler_name": self.sampler.name,
            "cfg_scale": self.input.get("guidance_scale"),
            "steps": self.input.get("num_inference_steps"),
            "batch_size": self.batch_size,
            "restore_faces": false,
            "face_restoration_model": null,
            "sd_model_name": model,
            "sd_model_hash": "",
            "denoising_strength": self.input.get("prompt_strength"),
            "extra_generation_params": approximated.map_or(json!({}), |what| json!({ APPROXIMATED: what })),
            "index_of_first_image": 0,
            "infotexts": texts.collect::<Vec<_>>(),
            "styles": [],
            "clip_skip": 1,
            "is_using_inpainting_conditioning": false,
        })
    }
}

/// A seed of 32 bits, as the web UI draws them.
fn random_seed() -> u64 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    u32::from_le_bytes(bytes).into()
}

/// A number of pictures: 1 where none is given.
fn count(fields: &Map<String, Value>, name: &str) -> Result<u64, Refusal> {
    match number(fields, name)? {
        None => Ok(1),
        Some(value) => value
            .as_u64()
            .filter(|n| *n > 0)
            .ok_or_else(|| Refusal::body(name, format!("expected an integer of at least 1, found {value}"))),
    }
}

/// The value of a field for a number, which some clients write as text. `None`: not given, or null.
///
/// # Errors
/// The field is a text that is no number.
fn number(fields: &Map<String, Value>, name: &str) -> Result<Option<Value>, Refusal> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => {
            let text = text.trim();
            let integer =
                text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from));
            // A text such as `inf` is no number of JSON.
            let float = || text.parse().ok().and_then(Number::from_f64).map(|number| whole(number.into()));
            let found = integer.ok().or_else(float);
            let short = || body::short(&text.into());
            let wrong = || Refusal::body(name, format!("expected a number, found {}", short()));
            found.ok_or_else(wrong).map(Some)
        }
        Some(value) => Ok(Some(whole(value.clone()))),
    }
}

/// A whole number that came with a decimal point, as some clients send it, without one.
fn whole(value: Value) -> Value {
    match value.as_f64() {
        Some(number) if value.is_f64() && number.fract() == 0.0 && number.abs() < 9e15 => {
            json!(number as i64)
        }
        _ => value,
    }
}
