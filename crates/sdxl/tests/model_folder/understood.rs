//! The published configs as they are understood, and the defaults of what they leave out.

use super::*;

/// SDXL base as published: sizes, depths and heads of every block.
#[test]
fn the_published_base_is_understood() {
    let dir = published("StableDiffusionXLPipeline");
    let folder = ModelFolder::open(dir.path()).unwrap();
    assert!(
        folder.has_text_encoder && folder.force_zeros_for_empty_prompt && !folder.requires_aesthetics_score
    );
    let configs = folder.configs().unwrap();
    let unet = &configs.unet;
    assert_eq!(unet.block_out_channels, [320, 640, 1280]);
    assert_eq!(unet.num_attention_heads, [5, 10, 20]);
    assert_eq!(unet.layers_per_block, [2, 2, 2]);
    assert_eq!(unet.down_block_types, [UNetBlock::Plain, UNetBlock::CrossAttn, UNetBlock::CrossAttn]);
    assert_eq!(unet.up_block_types, [UNetBlock::CrossAttn, UNetBlock::CrossAttn, UNetBlock::Plain]);
    assert_eq!(unet.down_transformer_layers, [[1, 1], [2, 2], [10, 10]]);
    assert_eq!(unet.mid_transformer_layers, 10);
    assert_eq!(unet.up_transformer_layers, [[10, 10, 10], [2, 2, 2], [1, 1, 1]]);
    assert_eq!((unet.time_embed_dim, unet.norm_num_groups, unet.sample_size), (1280, 32, Some(128)));
    assert!(unet.use_linear_projection && unet.flip_sin_to_cos);
    assert_eq!((unet.norm_eps, unet.freq_shift), (1e-5, 0.0));
    let vae = &configs.vae;
    assert_eq!((vae.scale(), vae.scaling_factor, vae.layers_per_block), (8, 0.13025, 2));
    assert!(
        vae.force_upcast
            && vae.use_quant_conv
            && vae.mid_block_add_attention
            && vae.latents_mean_std.is_none()
    );
    let (first, second) = (configs.text_encoder.as_ref().unwrap(), &configs.text_encoder_2);
    assert_eq!((first.hidden_act, first.hidden_size, first.eos_token_id), (HiddenAct::QuickGelu, 768, 2));
    assert_eq!(
        (second.hidden_act, second.projection_dim, second.num_hidden_layers),
        (HiddenAct::Gelu, 1280, 32)
    );
}

/// The refiner: one text encoder, four blocks, five time ids.
#[test]
fn the_published_refiner_is_understood() {
    let dir = published("StableDiffusionXLImg2ImgPipeline");
    edit(&dir, "model_index.json", |index| {
        index["text_encoder"] = json!([null, null]);
        index["tokenizer"] = json!([null, null]);
        index["requires_aesthetics_score"] = json!(true);
    });
    edit(&dir, "unet/config.json", |config| {
        config["block_out_channels"] = json!([384, 768, 1536, 1536]);
        config["attention_head_dim"] = json!([6, 12, 24, 24]);
        config["transformer_layers_per_block"] = json!(4);
        config["cross_attention_dim"] = json!(1280);
        config["projection_class_embeddings_input_dim"] = json!(2560);
        config["down_block_types"] =
            json!(["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]);
        config["up_block_types"] =
            json!(["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]);
    });
    let folder = ModelFolder::open(dir.path()).unwrap();
    assert!(!folder.has_text_encoder && folder.requires_aesthetics_score);
    let configs = folder.configs().unwrap();
    assert!(configs.text_encoder.is_none());
    assert_eq!(configs.unet.up_transformer_layers, [[4; 3]; 4]);
    assert_eq!((configs.unet.mid_transformer_layers, configs.unet.time_embed_dim), (4, 1536));
}

/// An asymmetric UNet gives each ResNet's transformer depth.
#[test]
fn nested_transformer_depths_are_spread() {
    let dir = tiny();
    edit(&dir, "unet/config.json", |config| {
        config["layers_per_block"] = json!([1, 2]);
        config["transformer_layers_per_block"] = json!([1, [2, 3]]);
        config["reverse_transformer_layers_per_block"] = json!([[4, 5, 6], 7]);
    });
    let unet = ModelFolder::open(dir.path()).unwrap().configs().unwrap().unet;
    assert_eq!(unet.down_transformer_layers, [vec![1], vec![2, 3]]);
    assert_eq!(unet.mid_transformer_layers, 2);
    assert_eq!(unet.up_transformer_layers, [vec![4, 5, 6], vec![7, 7]]);
}

/// Protects: a middle block without attention, or none, makes no demands on the attention's heads and depths.
#[test]
fn middle_blocks() {
    for (value, expected) in [
        (json!("UNetMidBlock2DCrossAttn"), UNetMidBlock::CrossAttn),
        (json!("UNetMidBlock2D"), UNetMidBlock::Plain),
        (json!(null), UNetMidBlock::None),
    ] {
        let dir = tiny();
        edit(&dir, "unet/config.json", |config| config["mid_block_type"] = value);
        let unet = ModelFolder::open(dir.path()).unwrap().configs().unwrap().unet;
        assert_eq!(unet.mid_block_type, expected);
    }
}

/// Fields that are left out have the libraries' own defaults.
#[test]
fn absent_fields_have_the_libraries_defaults() {
    let dir = tiny();
    dir.write("text_encoder/config.json", "{\"hidden_size\": 16, \"num_attention_heads\": 2}");
    edit(&dir, "vae/config.json", |config| {
        for field in ["scaling_factor", "force_upcast", "use_quant_conv", "act_fn", "latent_channels"] {
            config.as_object_mut().unwrap().remove(field);
        }
    });
    let configs = ModelFolder::open(dir.path()).unwrap().configs().unwrap();
    let text = configs.text_encoder.unwrap();
    assert_eq!((text.vocab_size, text.intermediate_size, text.num_hidden_layers), (49408, 2048, 12));
    assert_eq!(
        (text.eos_token_id, text.hidden_act, text.layer_norm_eps),
        (49407, HiddenAct::QuickGelu, 1e-5)
    );
    assert_eq!((configs.vae.scaling_factor, configs.vae.use_quant_conv), (0.18215, true));
}

/// The configs of SDXL 1.0, reduced to what they say of sizes and behaviour.
fn published(class: &str) -> Temp {
    let dir = Temp::new();
    let write = |file: &str, value: Value| drop(dir.write(file, value.to_string()));
    write(
        "model_index.json",
        json!({
            "_class_name": class, "_diffusers_version": "0.19.0.dev0", "force_zeros_for_empty_prompt": true,
            "scheduler": ["diffusers", "EulerDiscreteScheduler"], "unet": ["diffusers", "UNet2DConditionModel"],
            "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"], "vae": ["diffusers", "AutoencoderKL"],
        }),
    );
    dir.write(
        "unet/config.json",
        r#"{
            "_class_name": "UNet2DConditionModel", "act_fn": "silu", "addition_embed_type": "text_time",
            "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256, "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280], "center_input_sample": false, "class_embed_type": null,
            "class_embeddings_concat": false, "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_dim": 2048,
            "cross_attention_norm": null, "downsample_padding": 1, "dual_cross_attention": false,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "encoder_hid_dim": null, "encoder_hid_dim_type": null, "flip_sin_to_cos": true, "freq_shift": 0,
            "in_channels": 4, "layers_per_block": 2, "mid_block_only_cross_attention": null,
            "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "norm_eps": 1e-5,
            "norm_num_groups": 32, "num_attention_heads": null, "num_class_embeds": null,
            "only_cross_attention": false, "out_channels": 4, "projection_class_embeddings_input_dim": 2816,
            "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": false, "resnet_time_scale_shift": "default",
            "sample_size": 128, "time_cond_proj_dim": null, "time_embedding_act_fn": null,
            "time_embedding_dim": null, "time_embedding_type": "positional", "timestep_post_act": null,
            "transformer_layers_per_block": [1, 2, 10], "upcast_attention": null, "use_linear_projection": true
        }"#,
    );
    write(
        "vae/config.json",
        json!({
            "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
            "force_upcast": true, "in_channels": 3, "latent_channels": 4, "layers_per_block": 2,
            "norm_num_groups": 32, "out_channels": 3, "sample_size": 1024, "scaling_factor": 0.13025,
        }),
    );
    let text = |hidden: usize, inner: usize, act: &str, heads: usize, layers: usize| {
        json!({
            "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": act,
            "hidden_size": hidden, "intermediate_size": inner, "layer_norm_eps": 1e-5,
            "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": heads,
            "num_hidden_layers": layers, "pad_token_id": 1, "projection_dim": hidden, "vocab_size": 49408,
        })
    };
    write("text_encoder/config.json", text(768, 3072, "quick_gelu", 12, 12));
    write("text_encoder_2/config.json", text(1280, 5120, "gelu", 20, 32));
    dir
}
