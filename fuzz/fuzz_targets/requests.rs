//! A request, as JSON: a prediction's and a training's, and the settings of a training beyond its fields.

#![no_main]

use calotype::plans;
use calotype_fuzz::check_message;
use calotype_request::{PredictInput, TrainInput, epochs, schema};
use calotype_sdxl::adapters::has_tag;
use calotype_sdxl::token::{contains_token, replace_token};
use calotype_train::TrainOptions;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|input: &[u8]| {
    let Ok(Value::Object(given)) = serde_json::from_slice(input) else { return };
    for result in [predict(&given), predict_typed(&given), train(&given), train_beyond(&given)] {
        result.unwrap_or_else(|message| check_message(&message));
    }
});

/// A refusal's message.
fn message(refusal: impl std::fmt::Display) -> String {
    refusal.to_string()
}

fn predict(given: &Map<String, Value>) -> Result<(), String> {
    let input = PredictInput::from_json(given.clone()).map_err(message)?;
    let plan = calotype::predict_plan(input)?;
    let plan = plans::predict_at_native_size(plan, given, Some(128));
    assert!(plan.width <= 4096 && plan.height <= 4096 && plan.steps <= 500, "{plan:?}");
    has_tag(&plan.prompt, "x.safetensors".as_ref());
    plans::request(&plan);
    Ok(())
}

/// As on the command line, where a field's value is a text.
fn predict_typed(given: &Map<String, Value>) -> Result<(), String> {
    let mut parsed = Map::new();
    let schema = PredictInput::command_line_schema();
    for (name, value) in given {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let value = schema.field(name).and_then(|field| field.parse(&text)).map_err(message)?;
        parsed.insert(name.clone(), value);
        schema::split(&text);
    }
    PredictInput::from_command_line(parsed).map(drop).map_err(message)
}

fn train(given: &Map<String, Value>) -> Result<(), String> {
    let input = TrainInput::from_json(given.clone()).map_err(message)?;
    let plan = plans::train(input, TrainOptions::default()).map_err(message)?;
    let plan = plans::train_at_native_size(plan, given, Some(1024));
    let plan = match epochs(given) {
        Some(epochs) => plan.for_epochs(epochs, 7),
        None => plan,
    };
    assert!(plan.pivot() <= plan.steps, "{plan:?}");
    plan.optimizer().map_err(message)?;
    contains_token(&plan.caption_prefix, &plan.token_string);
    replace_token(&plan.caption_prefix, &plan.token_string, "<s0><s1>");
    Ok(())
}

fn train_beyond(given: &Map<String, Value>) -> Result<(), String> {
    let options = plans::train_options(given.clone()).map_err(message)?;
    let mut least = Map::new();
    least.insert("input_images".into(), "set.zip".into());
    let input = TrainInput::from_json(least).map_err(message)?;
    plans::train(input, options).map(drop).map_err(message)
}
