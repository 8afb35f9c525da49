//! What people mean by a name that is none of ours.

/// The least likeness of names, from 0 to 1, of which one is taken for a misspelt other.
const ALIKE: f64 = 0.8;

/// Names in other programs (A1111, ComfyUI, diffusers, kohya's scripts, OpenAI's API), each with the field that does the same.
const ELSEWHERE: [(&str, &str); 34] = [
    ("steps", "num_inference_steps"),
    ("steps", "max_train_steps"),
    ("num_steps", "num_inference_steps"),
    ("num_steps", "max_train_steps"),
    ("cfg", "guidance_scale"),
    ("cfg_scale", "guidance_scale"),
    ("guidance", "guidance_scale"),
    ("sampler", "scheduler"),
    ("sampler_name", "scheduler"),
    ("sampler_index", "scheduler"),
    ("neg_prompt", "negative_prompt"),
    ("n", "num_outputs"),
    ("batch_size", "num_outputs"),
    ("batch_size", "train_batch_size"),
    ("num_images", "num_outputs"),
    ("num_images_per_prompt", "num_outputs"),
    ("denoising_strength", "prompt_strength"),
    ("strength", "prompt_strength"),
    ("denoise", "prompt_strength"),
    ("init_image", "image"),
    ("mask_image", "mask"),
    ("refiner_switch_at", "high_noise_frac"),
    ("denoising_end", "high_noise_frac"),
    ("lora", "replicate_weights"),
    ("lora_weights", "replicate_weights"),
    ("cross_attention_kwargs", "lora_scale"),
    ("instance_prompt", "caption_prefix"),
    ("images", "input_images"),
    ("network_dim", "lora_rank"),
    ("rank", "lora_rank"),
    ("learning_rate", "lora_lr"),
    ("lr", "lora_lr"),
    ("epochs", "num_train_epochs"),
    ("trigger_word", "token_string"),
];

/// The one of `known` that `name` probably means: what another program calls so, or else the most similar. `None`: none is similar.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.collect();
    let meant = ELSEWHERE.iter().filter(|(elsewhere, _)| *elsewhere == name);
    let meant = meant.flat_map(|(_, field)| known.iter().find(|known| *known == field)).next();
    let alike = known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
    let alike = alike.filter(|(likeness, _)| *likeness > ALIKE);
    meant.or(alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)).copied()
}

#[cfg(test)]
mod tests {
    use super::{ELSEWHERE, nearest};
    use crate::{PredictInput, TrainInput};

    /// Protects people from guesses that lead them astray: a misspelt name, a name from another program, and names that mean nothing here.
    #[test]
    fn what_a_name_means() {
        let (predict, train) = (PredictInput::schema(), TrainInput::schema());
        let guess = |name: &str| {
            [&predict, &train].map(|schema| nearest(name, schema.fields().iter().map(|f| f.name.as_str())))
        };
        assert_eq!(guess("widht"), [Some("width"), None]);
        assert_eq!(guess("promt"), [Some("prompt"), None]);
        assert_eq!(guess("max_steps"), [None, Some("max_train_steps")]);
        assert_eq!(guess("steps"), [Some("num_inference_steps"), Some("max_train_steps")]);
        assert_eq!(guess("num_images")[0], Some("num_outputs"));
        assert_eq!(guess("lr"), [None, Some("lora_lr")]);
        assert_eq!(guess("quality"), [None, None]);
        for (name, field) in ELSEWHERE {
            let fields = || predict.fields().iter().chain(train.fields());
            assert!(fields().any(|known| known.name == field), "{field}");
            assert!(!fields().any(|known| known.name == name), "{name} is a field");
        }
    }
}
