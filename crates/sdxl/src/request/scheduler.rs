//! The request's `scheduler`: a row of the samplers' table, by its wire name.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::samplers::Sampler;

/// The published default.
const DEFAULT: &str = "K_EULER";

/// A choice among [`Sampler::ALL`].
#[derive(Debug, Clone, Copy)]
pub struct Scheduler(&'static Sampler);

impl Scheduler {
    /// The wire name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The sampler itself.
    pub fn sampler(self) -> &'static Sampler {
        self.0
    }
}

impl Default for Scheduler {
    fn default() -> Scheduler {
        let named = Sampler::ALL.iter().find(|sampler| sampler.name() == DEFAULT);
        Scheduler(named.unwrap_or(&Sampler::ALL[0]))
    }
}

impl PartialEq for Scheduler {
    fn eq(&self, other: &Scheduler) -> bool {
        self.name() == other.name()
    }
}

impl Serialize for Scheduler {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Scheduler {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Scheduler, D::Error> {
        let name = Cow::<str>::deserialize(from)?;
        Sampler::find(&name).map(Scheduler).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Scheduler {
    fn schema_name() -> Cow<'static, str> {
        "scheduler".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Sampler::ALL.iter().map(Sampler::name).collect();
        json_schema!({ "type": "string", "enum": names })
    }
}
