//! An engine that computes nothing: for tests of this crate, those in `tests/api` among them, which read this file too.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use image::{ImageFormat, RgbImage};
use serde_json::{Map, Value};

use crate::engine::{
    Engine, EngineError, Forecast, Predicted, Prepared, PreparedPicture, Progress, Trained, Work,
};

/// A picture of one pixel: that of an input without a size and a seed.
pub const PNG: &[u8] = &[
    137, 80, 78, 71, 13, 10, 26, 10, 0, 0, 0, 13, 73, 72, 68, 82, 0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0, 58,
    126, 155, 85, 0, 0, 0, 10, 73, 68, 65, 84, 120, 156, 99, 96, 0, 0, 0, 2, 0, 1, 72, 175, 164, 113, 0, 0,
    0, 0, 73, 69, 78, 68, 174, 66, 96, 130,
];

/// A PNG file of one colour.
pub fn png(width: u32, height: u32, gray: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, [gray; 3].into()).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// An engine that does as the prompt, or the token, says: `wait`, `wait at the end`, or `wait with seed N`, until [`StandIn::go_on`], `fail`, `bad mask`, `flagged`, or a picture, which has the
/// input's size and is as gray as the seed says.
#[derive(Default)]
pub struct StandIn {
    goes_on: Mutex<bool>,
    changed: Condvar,
}

impl StandIn {
    /// Lets all that wait go on.
    pub fn go_on(&self) {
        *self.goes_on.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self, work: &dyn Work) -> Result<(), EngineError> {
        let mut goes_on = self.goes_on.lock().unwrap();
        while !*goes_on {
            if let Some(stop) = work.stop() {
                return Err(EngineError::Stopped(stop));
            }
            goes_on = self.changed.wait_timeout(goes_on, Duration::from_millis(5)).unwrap().0;
        }
        Ok(())
    }
}

impl Engine for StandIn {
    fn model(&self) -> String {
        "stand-in".into()
    }

    fn set_up(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn check_prediction(&self, input: &Map<String, Value>) -> Result<(), EngineError> {
        let wrong = |field: &str, problem: &str| {
            Err(EngineError::Input { field: field.into(), problem: problem.into() })
        };
        if input.contains_key("mask") && !input.contains_key("image") {
            return wrong("mask", "expected an image beside it");
        }
        match input.get("width").and_then(Value::as_u64) {
            Some(8) => wrong("width", "too small for the model"),
            _ => Ok(()),
        }
    }

    fn check_training(&self, _: &Map<String, Value>) -> Result<(), EngineError> {
        Ok(())
    }

    fn predict(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Predicted, EngineError> {
        let progress = |done| Progress {
            stage: "sampling".into(),
            done,
            total: 2,
            seconds_left: None,
            losses: Vec::new(),
        };
        work.log("Using seed: 1");
        work.progress(progress(1));
        work.preview(0, PNG);
        match input.get("prompt").and_then(Value::as_str).unwrap_or_default() {
            "wait" => self.wait(work)?,
            prompt if input.get("seed").is_some_and(|seed| prompt == format!("wait with seed {seed}")) => {
                self.wait(work)?;
            }
            "fail" => return Err(EngineError::Failed("it broke".into())),
            "bad mask" => {
                return Err(EngineError::Input { field: "mask".into(), problem: "not a picture".into() });
            }
            _ => {}
        }
        work.log(" 50%|█████     | 1/2");
        work.progress(progress(2));
        if input.get("prompt").is_some_and(|prompt| prompt == "wait at the end") {
            self.wait(work)?;
        }
        let is_flagged = input.get("prompt").is_some_and(|prompt| prompt == "flagged");
        let count = input.get("num_outputs").and_then(Value::as_u64).unwrap_or(1);
        let pictures = (0..count).map(|number| {
            let path = folder.join(format!("out-{number}.png"));
            fs::write(&path, picture(input)).unwrap();
            (!is_flagged).then_some(path)
        });
        Ok(Predicted { pictures: pictures.collect(), metrics: Map::new() })
    }

    fn train(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Trained, EngineError> {
        if input.get("token_string").is_some_and(|token| token == "wait") {
            // What a run has in its folder: enough for a checkpoint.
            fs::write(folder.join("settings.json"), "{}").unwrap();
            work.checkpoint(folder);
            self.wait(work)?;
        }
        let weights = folder.join("trained_model.tar");
        fs::write(&weights, b"weights").unwrap();
        Ok(Trained { weights, files: Vec::new(), metrics: Map::new() })
    }

    fn prepare(
        &self,
        input: &Map<String, Value>,
        folder: &Path,
        work: &dyn Work,
    ) -> Result<Prepared, EngineError> {
        if input.get("token_string").is_some_and(|token| token == "wait") {
            self.wait(work)?;
        }
        let file = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, PNG).unwrap();
            path
        };
        let picture = PreparedPicture {
            name: "a.png".into(),
            picture: file("a.png"),
            mask: Some(file("a.mask.png")),
            caption: "a photo of TOK".into(),
            size: [1, 1],
            upscaled: true,
            warnings: vec!["small".into()],
        };
        Ok(Prepared {
            set: file("set.zip"),
            contact_sheet: file("contact_sheet.png"),
            pictures: vec![picture],
            warnings: Vec::new(),
            forecast: Forecast { steps: Some(1000), seconds: Some(3600.0), bytes: Some(1 << 30) },
            metrics: Map::new(),
        })
    }
}

fn picture(input: &Map<String, Value>) -> Vec<u8> {
    let number = |name: &str| input.get(name).and_then(Value::as_u64);
    let [width, height, seed] = ["width", "height", "seed"].map(number);
    if [width, height, seed] == [None; 3] {
        return PNG.into();
    }
    png(width.unwrap_or(16) as u32, height.unwrap_or(16) as u32, seed.unwrap_or(0) as u8)
}
