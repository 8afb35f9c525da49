//! The fields of a request → inputs of predictions.

use calotype_request::schema;
use serde_json::{Map, Value, json};

use crate::api::masks::Format;
use crate::api::refusal::Refusal;
use crate::api::{body, input};
use crate::job::Kind;

/// The most pictures of a request, as OpenAI has it.
const MOST: u64 = 10;

/// The most previews of a picture, as OpenAI has it.
const MOST_PARTIAL: u64 = 3;

/// The qualities that an answer of OpenAI may have.
const QUALITIES: [&str; 3] = ["low", "medium", "high"];

/// OpenAI's names of fields, or those that clients of others use, and ours.
const NAMES: [(&str, &str); 7] = [
    ("prompt", "prompt"),
    ("negative_prompt", "negative_prompt"),
    ("seed", "seed"),
    ("steps", "num_inference_steps"),
    ("guidance_scale", "guidance_scale"),
    ("prompt_strength", "prompt_strength"),
    ("scheduler", "scheduler"),
];

/// Their name of one of our fields.
pub(super) fn theirs(ours: &str) -> &str {
    match ours {
        "width" | "height" => "size",
        _ => NAMES.iter().find(|(_, name)| *name == ours).map_or(ours, |(theirs, _)| theirs),
    }
}

/// How a request wants to have its pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Answer {
    pub as_url: bool,
    pub format: Format,
    /// The size that the request wants.
    pub size: Option<(u32, u32)>,
    /// The most previews of each picture, where the answer is to be events.
    pub stream: Option<u64>,
    /// The quality that the request wants, for the answer.
    pub quality: Option<&'static str>,
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// The model's name, as given.
    pub model: String,
    input: Map<String, Value>,
    count: u64,
    how: Answer,
}

impl Request {
    /// Reads fields of JSON, or of a form, where numbers are texts.
    pub(super) fn of_fields(fields: &Map<String, Value>) -> Result<Request, Refusal> {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        if fields.get("prompt").is_none_or(Value::is_null) {
            return Err(Refusal::body("prompt", "required, but not given"));
        }
        let model = body::text(fields, "model")?.unwrap_or_default();
        let mut input = Map::new();
        for (theirs, ours) in NAMES {
            if let Some(value) = fields.get(theirs).filter(|value| !value.is_null()) {
                let is_text = matches!(ours, "prompt" | "negative_prompt" | "scheduler");
                input.insert(ours.into(), if is_text { value.clone() } else { number(value) });
            }
        }
        let size = size(text("size"))?;
        if let Some((width, height)) = size {
            input.extend([("width".to_string(), json!(width)), ("height".to_string(), json!(height))]);
        }
        input.insert("num_outputs".into(), json!(1));
        let count = match fields.get("n").filter(|n| !n.is_null()).map(number) {
            None => 1,
            Some(n) => n.as_u64().filter(|n| (1..=MOST).contains(n)).ok_or_else(|| {
                Refusal::body("n", format!("expected an integer from 1 to {MOST}, found {n}"))
            })?,
        };
        let format = format(text("output_format"), fields.get("output_compression"))?;
        let quality = QUALITIES.into_iter().find(|known| *known == text("quality"));
        let stream = stream(fields)?;
        let as_url = match text("response_format") {
            // Clients of OpenAI's older models read the URL where they have not said what they want.
            "" => model.starts_with("dall-e-") && stream.is_none(),
            "b64_json" => false,
            "url" => true,
            other => {
                let problem = format!("expected b64_json or url, found {other:?}");
                return Err(Refusal::body("response_format", problem));
            }
        };
        if stream.is_some() && as_url {
            return Err(Refusal::body("response_format", "expected b64_json with stream, found \"url\""));
        }
        let how = Answer { as_url, format, size, stream, quality };
        Ok(Request { model, input, count, how })
    }

    /// Sets a field of the input.
    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.input.insert(name.into(), value);
    }

    /// The input of each picture. The first has the request's seed, the next one more, and so on.
    pub(super) fn into_inputs(self) -> (Vec<Map<String, Value>>, Answer) {
        let seed = self.input.get("seed").and_then(Value::as_u64);
        let inputs = (0..self.count).map(|i| {
            let mut input = self.input.clone();
            if let Some(seed) = seed {
                input.insert("seed".into(), json!(seed.wrapping_add(i)));
            }
            input
        });
        (inputs.collect(), self.how)
    }
}

/// A number, which forms have as text.
fn number(value: &Value) -> Value {
    let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text.trim()).ok());
    parsed.filter(Value::is_number).unwrap_or_else(|| value.clone())
}

fn is_true(value: &Value) -> bool {
    value == &Value::Bool(true) || value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// The most previews of each picture. `None`: the answer is not to be streamed.
fn stream(fields: &Map<String, Value>) -> Result<Option<u64>, Refusal> {
    let partial_images = match fields.get("partial_images").filter(|value| !value.is_null()).map(number) {
        None => 0,
        Some(value) => value.as_u64().filter(|n| *n <= MOST_PARTIAL).ok_or_else(|| {
            let problem = format!("expected an integer from 0 to {MOST_PARTIAL}, found {value}");
            Refusal::body("partial_images", problem)
        })?,
    };
    Ok(fields.get("stream").is_some_and(is_true).then_some(partial_images))
}

/// `WIDTHxHEIGHT`. `None`: `auto`, the model's own size.
fn size(text: &str) -> Result<Option<(u32, u32)>, Refusal> {
    if matches!(text, "" | "auto") {
        return Ok(None);
    }
    let sides = text
        .split_once(['x', 'X', '×'])
        .and_then(|(w, h)| Some((w.trim().parse::<u32>().ok()?, h.trim().parse::<u32>().ok()?)));
    let schema = input::schema(Kind::Prediction);
    let is_side = |side: u32| schema::check(schema, Map::from_iter([("width".into(), json!(side))])).is_ok();
    match sides.filter(|(width, height)| is_side(*width) && is_side(*height)) {
        Some(sides) => Ok(Some(sides)),
        None => {
            let side = schema.field("width").map(|field| field.expects()).unwrap_or_default();
            let problem = format!("expected auto, or WIDTHxHEIGHT with {side} for each, found {text:?}");
            Err(Refusal::body("size", problem))
        }
    }
}

fn format(name: &str, compression: Option<&Value>) -> Result<Format, Refusal> {
    let compression = match compression.filter(|value| !value.is_null()).map(number) {
        None => None,
        Some(value) => match value.as_u64().filter(|percent| *percent <= 100) {
            // Theirs begins at 0, the encoder's at 1.
            Some(percent) => u8::try_from(percent.max(1)).ok(),
            None => {
                let problem = format!("expected an integer from 0 to 100, found {value}");
                return Err(Refusal::body("output_compression", problem));
            }
        },
    };
    match (name, compression) {
        // These are without loss here, which no compression is better than.
        ("" | "png", _) => Ok(Format::Png),
        ("webp", _) => Ok(Format::Webp),
        ("jpeg" | "jpg", quality) => Ok(Format::Jpeg(quality)),
        (other, _) => {
            Err(Refusal::body("output_format", format!("expected png, jpeg or webp, found {other:?}")))
        }
    }
}
