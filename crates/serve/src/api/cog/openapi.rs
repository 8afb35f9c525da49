//! `/openapi.json`: Cog's document, with the schemas of our requests.

use calotype_request::schema::Schema;
use serde_json::{Map, Value, json};

use crate::api::input::schema;
use crate::job::Kind;

/// What Cog's document has for every model.
const DOCUMENT: &str = include_str!("openapi.json");

/// The document.
pub fn document() -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).expect("the file beside this one is JSON");
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        for kind in [Kind::Prediction, Kind::Training] {
            add(schemas, schema(kind));
        }
    }
    document
}

/// Adds an input to the components, and each choice as a component of its own.
fn add(schemas: &mut Map<String, Value>, schema: &Schema) {
    let mut input = schema.json().clone();
    for (name, field) in input["properties"].as_object_mut().into_iter().flatten() {
        let Some(fields) = field.as_object_mut() else { continue };
        let Some(choices) = fields.shift_remove("enum") else { continue };
        fields.shift_remove("type");
        fields.shift_remove("title");
        fields.shift_insert(0, "allOf".into(), json!([{ "$ref": format!("#/components/schemas/{name}") }]));
        let component =
            json!({ "enum": choices, "type": "string", "title": name, "description": "An enumeration." });
        schemas.insert(name.clone(), component);
    }
    let title = input["title"].as_str().unwrap_or_default().to_owned();
    schemas.insert(title, input);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects programs that build forms and requests from the document: inputs have the published form, and every reference leads
    /// somewhere.
    #[test]
    fn the_document_is_whole() {
        let document = document();
        let schemas = &document["components"]["schemas"];
        let scheduler = &schemas["Input"]["properties"]["scheduler"];
        let keys: Vec<&str> = scheduler.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["allOf", "default", "x-order", "description"]);
        assert_eq!(scheduler["allOf"], json!([{ "$ref": "#/components/schemas/scheduler" }]));
        assert_eq!(schemas["scheduler"]["title"], "scheduler");
        assert_eq!(schemas["scheduler"]["enum"].as_array().unwrap().len(), 7);
        assert_eq!(schemas["Input"]["properties"]["prompt"]["x-order"], 0);
        assert_eq!(schemas["TrainingInput"]["required"], json!(["input_images"]));
        assert_eq!(schemas["TrainingInput"]["properties"]["input_images"]["format"], "uri");
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas[name].is_object(), "{name}");
        }
    }
}
