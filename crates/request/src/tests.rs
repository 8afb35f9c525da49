//! The values that a request accepts and refuses, and the messages.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::schema::{self, Schema};
use super::*;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn refusal(value: Value) -> String {
    PredictInput::from_json(object(value)).expect_err("a refusal").to_string()
}

fn accepted(value: Value) -> PredictInput {
    PredictInput::from_json(object(value)).expect("a valid request")
}

/// Protects the table of schedulers: it begins with the names of the published schema, and the command line takes the others too.
#[test]
fn schedulers_have_their_wire_names() {
    let names = Scheduler::ALL.map(Scheduler::name);
    let choices = |schema: Schema| schema.json()["properties"]["scheduler"]["enum"].clone();
    assert_eq!(choices(PredictInput::schema()), json!(names[..7]));
    assert_eq!(choices(PredictInput::command_line_schema()), json!(names));
    for (i, scheduler) in Scheduler::ALL.into_iter().enumerate() {
        let given = object(json!({"scheduler": scheduler.name()}));
        let input = PredictInput::from_command_line(given.clone()).expect("a valid request");
        assert_eq!(input.scheduler, scheduler);
        assert_eq!(PredictInput::from_json(given).is_ok(), i < 7, "{scheduler:?}");
    }
}

/// Compares two JSON values, numbers by value, because 1 and 1.0 are the same default.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Checks that every key of the published component is in our schema with the same value, except the defaults in
/// `changed`. Our schema may have more keys (limits), but no other field.
fn assert_published(ours: &Schema, published: &Value, components: &Value, changed: &[&str]) {
    let fields = published["properties"].as_object().expect("properties");
    assert_eq!(ours.fields().len(), fields.len());
    assert_eq!(ours.json()["title"], published["title"]);
    assert_eq!(ours.json().get("required"), published.get("required"));
    for (name, theirs) in fields {
        let field = &ours.json()["properties"][name];
        for (key, value) in object(theirs.clone()) {
            if key == "allOf" {
                let target =
                    value[0]["$ref"].as_str().and_then(|r| r.rsplit('/').next()).expect("a reference");
                assert_eq!(field["enum"], components[target]["enum"], "{name}: choices");
                assert_eq!(field["type"], components[target]["type"], "{name}: type of the choices");
            } else if !(key == "default" && changed.contains(&name.as_str())) {
                assert!(same(&field[&key], &value), "{name}.{key}: expected {value}, found {}", field[&key]);
            }
        }
        assert_eq!(field.get("default").is_some(), theirs.get("default").is_some(), "{name}: default");
    }
}

/// Protects the names, types, defaults, choices, ranges, order and descriptions of the published interface.
#[test]
fn schemas_are_the_published_ones() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/contracts/sdxl-openapi.json");
    let Ok(text) = std::fs::read_to_string(file) else {
        eprintln!("skipped: no ../shared/contracts");
        return;
    };
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let components = &document["components"]["schemas"];
    assert_published(&PredictInput::schema(), &components["Input"], components, &[]);
    let changed = ["resolution", "checkpointing_steps"];
    assert_published(&TrainInput::schema(), &components["TrainingInput"], components, &changed);
}

/// Protects the names, the defaults and their order, without the published files.
#[test]
fn names_and_defaults_stay() {
    let listed = |schema: &Schema| -> Vec<(String, Value)> {
        let default = |f: &schema::Field| f.default().cloned().unwrap_or(Value::Null);
        schema.fields().iter().map(|f| (f.name.clone(), default(f))).collect()
    };
    let predict = json!({
        "prompt": "An astronaut riding a rainbow unicorn", "negative_prompt": "", "image": null, "mask": null,
        "width": 1024, "height": 1024, "num_outputs": 1, "scheduler": "K_EULER", "num_inference_steps": 50,
        "guidance_scale": 7.5, "prompt_strength": 0.8, "seed": null, "refine": "no_refiner",
        "high_noise_frac": 0.8, "refine_steps": null, "apply_watermark": true, "lora_scale": 0.6,
        "replicate_weights": null, "disable_safety_checker": false
    });
    assert_eq!(listed(&PredictInput::schema()), object(predict).into_iter().collect::<Vec<_>>());
    let train = json!({
        "input_images": null, "seed": null, "resolution": 512, "train_batch_size": 4, "num_train_epochs": 4000,
        "max_train_steps": 1000, "is_lora": true, "unet_learning_rate": 1e-6, "ti_lr": 3e-4, "lora_lr": 1e-4,
        "lora_rank": 32, "lr_scheduler": "constant", "lr_warmup_steps": 100, "token_string": "TOK",
        "caption_prefix": "a photo of TOK, ", "mask_target_prompts": null, "crop_based_on_salience": true,
        "use_face_detection_instead": false, "clipseg_temperature": 1.0, "verbose": true,
        "checkpointing_steps": 200, "input_images_filetype": "infer"
    });
    assert_eq!(listed(&TrainInput::schema()), object(train).into_iter().collect::<Vec<_>>());
}

/// Protects the form of a field's schema: the published keys, and no details of Rust (formats, nulls, references).
#[test]
fn a_field_reads_as_published() {
    let predict = PredictInput::schema();
    let properties = &predict.json()["properties"];
    assert_eq!(
        properties["num_inference_steps"],
        json!({"type": "integer", "title": "Num Inference Steps", "default": 50, "maximum": 500, "minimum": 1,
               "x-order": 8, "description": "Number of denoising steps"})
    );
    assert_eq!(properties["refine_steps"]["type"], "integer");
    assert_eq!(
        properties["scheduler"]["enum"],
        json!([
            "DDIM",
            "DPMSolverMultistep",
            "HeunDiscrete",
            "KarrasDPM",
            "K_EULER_ANCESTRAL",
            "K_EULER",
            "PNDM"
        ])
    );
    assert!(!predict.json().to_string().contains("$ref"));
}

/// Protects the messages: each names the field, and what was expected and found.
#[test]
fn refusals_name_the_field() {
    let size = "expected a multiple of 8 from 8 to 4096";
    for (request, message) in [
        (json!({"width": 1023}), format!("width: {size}, found 1023")),
        (json!({"width": 0}), format!("width: {size}, found 0")),
        (json!({"height": 4104}), format!("height: {size}, found 4104")),
        (json!({"height": null}), format!("height: {size}, found null")),
        (
            json!({"num_inference_steps": 0}),
            "num_inference_steps: expected an integer from 1 to 500, found 0".into(),
        ),
        (
            json!({"num_inference_steps": 501}),
            "num_inference_steps: expected an integer from 1 to 500, found 501".into(),
        ),
        (
            json!({"num_inference_steps": 2.5}),
            "num_inference_steps: expected an integer from 1 to 500, found 2.5".into(),
        ),
        (json!({"num_outputs": 5}), "num_outputs: expected an integer from 1 to 4, found 5".into()),
        (json!({"guidance_scale": 0.5}), "guidance_scale: expected a number from 1 to 50, found 0.5".into()),
        (json!({"prompt": 3}), "prompt: expected text, found 3".into()),
        (
            json!({"scheduler": "EULER"}),
            "scheduler: expected one of DDIM, DPMSolverMultistep, HeunDiscrete, KarrasDPM, K_EULER_ANCESTRAL, \
             K_EULER, PNDM, found \"EULER\""
                .into(),
        ),
        (json!({"widht": 512}), "widht: unknown field, did you mean width?".into()),
        (json!({"sheduler": "PNDM"}), "sheduler: unknown field, did you mean scheduler?".into()),
        (json!({"zzz": 1}), "zzz: unknown field".into()),
    ] {
        assert_eq!(refusal(request), message);
    }
}

/// Protects fields that all have their feature: none is refused.
#[test]
fn the_refiner_and_the_watermark_are_there() {
    accepted(
        json!({"refine": "base_image_refiner", "apply_watermark": false, "image": "a.png", "mask": null}),
    );
}

/// Protects the fields of the set alone: they are fields of a training, and a request of them is a training's.
#[test]
fn a_set_has_fields_of_its_own() {
    let (all, set) = (TrainInput::schema(), TrainInput::preprocess_schema());
    for field in set.fields() {
        assert_eq!(all.field(&field.name).map(|field| field.expects()), Ok(field.expects()));
    }
    assert!(set.field("mask_target_prompts").is_ok() && set.field("lora_rank").is_err());
    let given =
        json!({ "input_images": "a.zip", "mask_target_prompts": "a dog", "clipseg_temperature": 0.5 });
    let input = TrainInput::from_json(object(given)).expect("a request");
    assert_eq!((input.mask_target_prompts.as_deref(), input.clipseg_temperature), (Some("a dog"), 0.5));
}

/// Protects the parsing of text: by the field's type, with all digits of a 64-bit seed, and only finite numbers.
#[test]
fn text_is_read_by_type() {
    let schema = PredictInput::schema();
    let parse = |name: &str, text: &str| schema.field(name).and_then(|f| f.parse(text));
    assert_eq!(parse("seed", "18446744073709551615"), Ok(json!(u64::MAX)));
    assert_eq!(parse("seed", "-1"), Ok(json!(-1)));
    assert_eq!(parse("guidance_scale", "7"), Ok(json!(7.0)));
    assert_eq!(parse("prompt", "512"), Ok(json!("512")));
    assert_eq!(parse("apply_watermark", "False"), Ok(json!(false)));
    for (name, text) in
        [("width", "512.5"), ("width", ""), ("seed", "18446744073709551616"), ("guidance_scale", "nan")]
    {
        let message = parse(name, text).expect_err(text).to_string();
        assert!(
            message.starts_with(&format!("{name}: expected ")) && message.ends_with(&format!("{text:?}"))
        );
    }
}

/// Protects required fields: a training without its pictures is refused by name.
#[test]
fn a_training_needs_pictures() {
    let error = schema::check(&TrainInput::schema(), Map::new()).expect_err("a refusal");
    assert_eq!(error.to_string(), "input_images: required, but not given");
}

/// Protects against panics: any value of any field is accepted or refused by name.
#[test]
fn any_value_gets_an_answer() {
    let texts = [
        "",
        " ",
        "-",
        "+1",
        "-0",
        "1e999",
        "0x10",
        "９",
        "\u{0}",
        "nan",
        "inf",
        "null",
        "[]",
        "{}",
        "😀",
        &"猫".repeat(500),
    ];
    let values = json!([null, true, 0, -1, u64::MAX, i64::MIN, 1e308, -0.0, 0.1, "", "\u{0}", [], {}, [[1]], {"a": 1}, "猫".repeat(500)]);
    for schema in [PredictInput::schema(), TrainInput::schema()] {
        for field in schema.fields() {
            let mut answers = Vec::new();
            for value in values.as_array().expect("an array") {
                answers.push(schema::check(&schema, object(json!({ &field.name: value }))).err());
                answers.push(PredictInput::from_json(object(json!({ &field.name: value }))).err());
                let training = json!({ "input_images": "a.zip", &field.name: value });
                answers.push(TrainInput::from_json(object(training)).err());
            }
            answers.extend(texts.iter().map(|text| field.parse(text).err()));
            for refused in answers.into_iter().flatten() {
                let known = field.name == refused.field || refused.problem == Problem::Missing;
                let line = refused.to_string();
                assert!(known && !line.contains('\n') && line.len() < 400, "{line}");
            }
        }
    }
}

/// Protects the limits of `lora_scale`: none on the command line, the published ones in JSON.
#[test]
fn lora_scale_has_limits_on_the_wire() {
    for scale in [-1.0, 1.5] {
        let given = object(json!({ "lora_scale": scale }));
        assert_eq!(PredictInput::from_command_line(given.clone()).map(|input| input.lora_scale), Ok(scale));
        let line = PredictInput::from_json(given).expect_err("a refusal").to_string();
        assert!(line.starts_with("lora_scale: expected a number from 0 to 1, found "), "{line}");
    }
}

/// Protects fields with several files, with or without commas in their names: splitting and joining are inverse.
#[test]
fn files_are_separated_by_commas() {
    let files = schema::split;
    assert_eq!(files("a.tar"), [Path::new("a.tar")]);
    assert_eq!(files("a.tar, b/c.tar,"), [Path::new("a.tar"), Path::new("b/c.tar")]);
    assert_eq!(files(r"a\,b.tar,C:\c"), [Path::new("a,b.tar"), Path::new(r"C:\c")]);
    assert_eq!(files(r"C:\a\\,b\c\"), [Path::new(r"C:\a\"), Path::new(r"b\c\")]);
    assert!(files("").is_empty());
}

/// Protects file names with any backslashes and commas: joining and splitting gives them back.
#[test]
fn names_of_files_come_back() {
    let letters = ["a", r"\", ",", r"\\", " b"];
    let mut names = vec!["x".to_string()];
    for first in letters {
        for second in letters {
            for third in letters {
                names.push(format!("{first}{second}{third}").trim().to_string());
            }
        }
    }
    for pair in names.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        for files in [vec![a], vec![a, b], vec![b, a, b]] {
            let found = schema::split(&schema::join(&files));
            assert_eq!(found, files.iter().map(std::path::PathBuf::from).collect::<Vec<_>>());
        }
    }
}

/// Protects against long texts: beyond a limit, a text is refused by name.
#[test]
fn long_texts_are_refused() {
    let text = |bytes: usize| object(json!({ "prompt": "a".repeat(bytes) }));
    assert!(PredictInput::from_json(text(schema::MAX_TEXT)).is_ok());
    let error = PredictInput::from_json(text(schema::MAX_TEXT + 1)).expect_err("too long").to_string();
    assert_eq!(error, "prompt: expected at most 65536 bytes, found 65537");
}

/// Protects terminals: a message quotes a field's name without control characters, and not at full length.
#[test]
fn names_are_quoted_cleanly() {
    let name = format!("wi\u{1b}[2J\ndth{}", "x".repeat(5000));
    let line = refusal(json!({ name: 1 }));
    assert!(line.starts_with("wi [2J dthx") && line.ends_with(": unknown field"), "{line}");
    assert!(line.len() < 400 && !line.contains(char::is_control), "{line}");
    // JSON does not escape this character.
    let value = format!("K_\u{7f}{}", "x".repeat(5000));
    let beyond = schema::deserialize::<TrainInput>(object(json!({ value.clone(): 1 })));
    let beyond = beyond.expect_err("unknown").to_string();
    for line in [beyond, refusal(json!({ "scheduler": value })), refusal(json!({ "width": value }))] {
        assert!(line.len() < 600 && !line.contains(char::is_control), "{line}");
    }
}
