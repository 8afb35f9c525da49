//! The layers of a model. Names in files are looked up among them, and shapes are checked against theirs.

use std::collections::BTreeMap;

use calotype_models::config::UNetConfig;
use calotype_models::single::Names;
use calotype_models::weights::{Weights, WeightsError};
use calotype_models::{Component, ModelConfigs, ModelFolder};

/// The layers of a model's UNet and text encoders, by path and by kohya's names.
pub struct Modules {
    unet: Table,
    /// The tables of the text encoders. The first is empty if the model has no first text encoder.
    text: [Table; 2],
}

/// The tensors of one component.
#[derive(Default)]
struct Table {
    /// The shape of every tensor, by key.
    shapes: BTreeMap<String, Vec<usize>>,
    /// The path by kohya's name, which has underscores for dots: `mid_block_attentions_0_proj_in`.
    underscored: BTreeMap<String, String>,
}

impl Modules {
    /// Reads the headers of a model folder's weights.
    ///
    /// # Errors
    /// Weights are missing or invalid.
    pub fn of(folder: &ModelFolder, configs: &ModelConfigs) -> Result<Self, WeightsError> {
        let table = |component| Ok(Table::new(&folder.weights(component, None, None)?));
        let mut unet = table(Component::UNet)?;
        unet.add_original_names(&configs.unet);
        let first = match configs.text_encoder {
            Some(_) => table(Component::TextEncoder)?,
            None => Table::default(),
        };
        Ok(Self { unet, text: [first, table(Component::TextEncoder2)?] })
    }

    fn table(&self, component: Component) -> &Table {
        match component {
            Component::TextEncoder => &self.text[0],
            Component::TextEncoder2 => &self.text[1],
            _ => &self.unet,
        }
    }

    /// The path of the layer with kohya's name `name`, which has underscores for dots.
    pub(super) fn by_underscores(&self, component: Component, name: &str) -> Option<&str> {
        self.table(component).underscored.get(name).map(String::as_str)
    }

    /// The shape of a layer's weight: (out, in), or (out, in, k, k); of a norm, (channels).
    pub(super) fn weight(&self, component: Component, path: &str) -> Option<&[usize]> {
        self.tensor(component, &format!("{path}.weight"))
    }

    /// The width of a text encoder's token embedding table.
    pub(super) fn width(&self, component: Component) -> Option<usize> {
        self.tensor(component, "text_model.embeddings.token_embedding.weight")?.last().copied()
    }

    /// The shape of any tensor.
    pub(super) fn tensor(&self, component: Component, key: &str) -> Option<&[usize]> {
        self.table(component).shapes.get(key).map(Vec::as_slice)
    }
}

impl Table {
    fn new(weights: &Weights) -> Self {
        let shapes: BTreeMap<String, Vec<usize>> =
            weights.shapes().map(|(key, shape)| (key.to_owned(), shape.to_vec())).collect();
        let paths = shapes.keys().filter_map(|key| key.strip_suffix(".weight"));
        let underscored = paths.map(|path| (path.replace('.', "_"), path.to_owned())).collect();
        Self { shapes, underscored }
    }

    /// Adds the names of SDXL's original numbering.
    fn add_original_names(&mut self, config: &UNetConfig) {
        let names = Names::of_unet(config);
        let paths = self.shapes.keys().filter_map(|key| key.strip_suffix(".weight"));
        let named =
            paths.filter_map(|path| Some((names.original(path)?.0.replace('.', "_"), path.to_owned())));
        let named: Vec<_> = named.collect();
        self.underscored.extend(named);
    }
}
