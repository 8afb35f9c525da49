//! The state of a training in a checkpoint.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use calotype_tensor::cpu;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CheckpointError;
use crate::plan::TrainPlan;
use crate::stop::Validation;
use crate::trainer::Trainer;
use calotype_models::shorten;

/// The version of the format. It increases if older checkpoints can no longer be read.
const FORMAT: u64 = 2;
/// Fields of the plan that may differ. The time of checkpoints and the place of the set do not change the result (the set is
/// identified by its CRC-32). The number of steps may be changed during a run ([`TrainPlan::with_steps`]), and so may whether it ends
/// before the last one.
const MAY_DIFFER: [&str; 6] =
    ["checkpointing_steps", "input_images", "input_images_filetype", "options.stop", "pivot", "steps"];

/// The content of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointState {
    format: u64,
    /// The optimizer steps that are done.
    steps_done: usize,
    /// The CRC-32 of the examples.
    examples: u32,
    /// The CRC-32 of the model.
    model: u32,
    /// The dtype of the computation.
    dtype: String,
    /// The instruction set of the computation. `None` in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isa: Option<String>,
    plan: Value,
    /// The optimizer steps of each parameter.
    pub(super) optimizer_steps: BTreeMap<String, u64>,
    /// The validations so far, of a training that may end before its last step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) validations: Vec<Validation>,
}

impl CheckpointState {
    pub(super) fn of(path: &Path, trainer: &Trainer) -> Result<Self, CheckpointError> {
        let plan =
            serde_json::to_value(trainer.plan()).map_err(|e| invalid(path, format!("the plan: {e}")))?;
        Ok(Self {
            format: FORMAT,
            steps_done: trainer.steps_done(),
            examples: trainer.set(),
            model: trainer.model(),
            dtype: trainer.options().dtype.to_string(),
            isa: Some(cpu::isa().name().into()),
            plan,
            optimizer_steps: trainer.trained().iter().map(|t| (t.name.clone(), t.state.step)).collect(),
            validations: trainer.validations().to_vec(),
        })
    }

    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        Ok(serde_json::to_writer_pretty(to, self)?)
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let json: Value =
            serde_json::from_slice(bytes).map_err(|e| invalid(path, format!("not valid JSON: {e}")))?;
        let format = &json["format"];
        if format.as_u64() != Some(FORMAT) {
            let found = shorten(&format.to_string());
            return Err(invalid(path, format!("format: expected {FORMAT}, found {found}")));
        }
        serde_json::from_value(json).map_err(|e| invalid(path, shorten(&e.to_string())))
    }

    /// Checks that the state belongs to the trainer's training.
    pub(super) fn check_training(&self, path: &Path, trainer: &Trainer) -> Result<(), CheckpointError> {
        let expected = Self::of(path, trainer)?;
        let mut differences = Vec::new();
        compare("", Some(&expected.plan), Some(&self.whole_plan()), &mut differences);
        self.compare_pivots(trainer.plan(), &mut differences);
        if expected.dtype != self.dtype {
            differences.push(format!("dtype: expected {}, found {}", expected.dtype, shorten(&self.dtype)));
        }
        for (what, expected, found) in
            [("the examples", expected.examples, self.examples), ("the model", expected.model, self.model)]
        {
            if expected != found {
                differences.push(format!("{what}: expected the CRC-32 {expected:08x}, found {found:08x}"));
            }
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(CheckpointError::OtherTraining { path: path.to_path_buf(), differences }),
        }
    }

    /// The plan, with the defaults of settings that the version which wrote it did not have.
    fn whole_plan(&self) -> Value {
        let plan = serde_json::from_value::<TrainPlan>(self.plan.clone());
        plan.and_then(serde_json::to_value).unwrap_or_else(|_| self.plan.clone())
    }

    /// Checks that the embeddings were trained in as many of the done steps as in the trainer's plan.
    fn compare_pivots(&self, plan: &TrainPlan, differences: &mut Vec<String>) {
        let Ok(own) = serde_json::from_value::<TrainPlan>(self.plan.clone()) else {
            return differences.push("the plan: expected that of a training, found another".into());
        };
        let [expected, found] = [plan, &own].map(|plan| plan.pivot().min(self.steps_done));
        if expected != found {
            let trained = format!("expected {expected} of {} steps, found {found}", self.steps_done);
            differences.push(format!("the embeddings' training: {trained}"));
        }
    }

    /// Warns if the state was computed with another instruction set than this process uses.
    pub(super) fn warn_of_isa(&self, path: &Path) {
        let now = cpu::isa().name();
        if let Some(isa) = self.isa.as_deref().filter(|isa| *isa != now) {
            tracing::warn!(
                "{}: computed with {}, going on with {now}: the bytes will differ from an uninterrupted run's",
                path.display(),
                shorten(isa)
            );
        }
    }

    /// Checks that the state is of step `step`, that the training has this step, and that every parameter has a
    /// number of steps.
    pub(super) fn check_steps(
        &self,
        path: &Path,
        step: usize,
        trainer: &Trainer,
    ) -> Result<(), CheckpointError> {
        let fail = |problem: String| Err(invalid(path, problem));
        if self.steps_done != step {
            return fail(format!(
                "steps_done: expected {step}, as the folder's name, found {}",
                self.steps_done
            ));
        }
        if step > trainer.plan().steps {
            return fail(format!("steps_done: expected at most {}, found {step}", trainer.plan().steps));
        }
        let mut steps = self.validations.iter().map(|(validated, _)| *validated);
        if !steps.clone().is_sorted() || steps.next_back().is_some_and(|last| last > step) {
            return fail(format!("validations: expected steps in order, up to {step}"));
        }
        for trained in trainer.trained() {
            match self.optimizer_steps.get(&trained.name) {
                None => return fail(format!("optimizer_steps: {}: missing", trained.name)),
                Some(&steps) if steps > step as u64 => {
                    let problem = format!("expected at most {step}, found {steps}");
                    return fail(format!("optimizer_steps: {}: {problem}", trained.name));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn invalid(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::Invalid { path: path.to_path_buf(), problem }
}

/// Collects every field that differs, with nested fields by their path. `None`: the field is absent.
fn compare(path: &str, expected: Option<&Value>, found: Option<&Value>, differences: &mut Vec<String>) {
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (expected, found) {
        for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&path, a.get(key), b.get(key), differences);
        }
    } else if expected != found && !MAY_DIFFER.contains(&path) {
        let show = |value: Option<&Value>| value.map_or("nothing".into(), |v| shorten(&v.to_string()));
        differences.push(format!("{}: expected {}, found {}", shorten(path), show(expected), show(found)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Protects the list of differences: it has every difference at every depth, and nothing else.
    #[test]
    fn differences_are_named() {
        let a =
            json!({ "seed": 1, "lr": 0.1, "method": { "lora": { "rank": 4 } }, "checkpointing_steps": 5 });
        let b = json!({ "seed": 1, "lr": 0.2, "method": { "lora": { "rank": 8 } }, "checkpointing_steps": 6, "x": null });
        let mut found = Vec::new();
        compare("", Some(&a), Some(&b), &mut found);
        let expected = [
            "lr: expected 0.1, found 0.2",
            "method.lora.rank: expected 4, found 8",
            "x: expected nothing, found null",
        ];
        assert_eq!(found, expected);
    }
}
