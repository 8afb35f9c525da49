//! A request, as JSON: a prediction's and a training's, and the settings of a training beyond its fields.

#![no_main]

use calotype_fuzz::check_error;
use calotype_sdxl::adapters::has_tag;
use calotype_sdxl::dataset::{contains_token, replace_token};
use calotype_sdxl::request::{
    InputError, PredictInput, PredictPlan, TrainInput, TrainOptions, TrainPlan, command_line, epochs, schema,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|input: &[u8]| {
    let Ok(Value::Object(given)) = serde_json::from_slice(input) else { return };
    for result in [predict(&given), predict_typed(&given), train(&given), train_beyond(&given)] {
        result.unwrap_or_else(check_error);
    }
});

fn predict(given: &Map<String, Value>) -> Result<(), InputError> {
    let plan = PredictPlan::new(PredictInput::from_json(given.clone())?).of_native_size(given, Some(128));
    assert!(plan.width <= 4096 && plan.height <= 4096 && plan.steps <= 500, "{plan:?}");
    has_tag(&plan.prompt, "x.safetensors".as_ref());
    serde_json::to_string(&plan).unwrap();
    Ok(())
}

/// As on the command line, where a field's value is a text.
fn predict_typed(given: &Map<String, Value>) -> Result<(), InputError> {
    let mut parsed = Map::new();
    for (name, value) in given {
        let schema = command_line();
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        parsed.insert(name.clone(), schema.field(name)?.parse(&text)?);
        schema::split(&text);
    }
    PredictInput::from_command_line(parsed).map(drop)
}

fn train(given: &Map<String, Value>) -> Result<(), InputError> {
    let input = TrainInput::from_json(given.clone())?;
    let plan = TrainPlan::new(input, TrainOptions::default())?.of_native_size(given, Some(1024));
    let plan = match epochs(given) {
        Some(epochs) => plan.for_epochs(epochs, 7),
        None => plan,
    };
    assert!(plan.pivot() <= plan.steps, "{plan:?}");
    plan.optimizer()?;
    contains_token(&plan.caption_prefix, &plan.token_string);
    replace_token(&plan.caption_prefix, &plan.token_string, "<s0><s1>");
    Ok(())
}

fn train_beyond(given: &Map<String, Value>) -> Result<(), InputError> {
    let options = TrainOptions::from_json(given.clone())?;
    let mut least = Map::new();
    least.insert("input_images".into(), "set.zip".into());
    TrainPlan::new(TrainInput::from_json(least)?, options).map(drop)
}
