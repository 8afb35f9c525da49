//! Pictures as the VAE takes them, latents as the VAE has them, and as the denoiser takes them.

use calotype_models::config::VaeConfig;
use calotype_tensor::{Tensor, ops};

/// A picture of RGB bytes, rows of `width` pixels, as the VAE's encoder takes it: (1, height, width, 3) from −1 to 1.
pub fn picture(rgb: &[u8], [height, width]: [usize; 2]) -> Tensor {
    let pixels = rgb.iter().map(|&byte| f32::from(byte) / 255.0 * 2.0 - 1.0);
    Tensor::from_vec(pixels.collect(), &[1, height, width, 3])
}

/// Latents (B, h, w, C) of the VAE's encoder, as the denoiser takes them: (z − mean) · `scaling_factor` / std.
pub fn scale(config: &VaeConfig, z: &Tensor) -> Tensor {
    let Some((mean, std)) = &config.latents_mean_std else {
        return ops::scale(z, config.scaling_factor);
    };
    by_channel(z, |c, z| (z - mean[c]) / std[c] * config.scaling_factor)
}

/// The inverse of [`scale`]: the denoiser's latents (B, h, w, C), as the VAE's decoder takes them.
pub fn unscale(config: &VaeConfig, latents: &Tensor) -> Tensor {
    let Some((mean, std)) = &config.latents_mean_std else {
        return ops::scale(latents, 1.0 / config.scaling_factor);
    };
    by_channel(latents, |c, x| x * std[c] / config.scaling_factor + mean[c])
}

/// Maps each value, with its channel.
fn by_channel(x: &Tensor, map: impl Fn(usize, f32) -> f32) -> Tensor {
    let channels = x.last_dim();
    let values = x.to_vec().into_iter().enumerate();
    Tensor::from_vec(values.map(|(i, x)| map(i % channels, x)).collect(), x.shape())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects VAEs with a mean and a deviation for each channel: diffusers' formula, and its inverse.
    #[test]
    fn means_and_deviations() {
        let json = r#"{"block_out_channels": [32], "latent_channels": 2, "scaling_factor": 0.5,
            "down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"],
            "latents_mean": [1.0, -2.0], "latents_std": [2.0, 4.0]}"#;
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("config.json"), json).expect("written");
        let config = VaeConfig::read(folder.path()).expect("a config");
        let z = Tensor::from_vec(vec![5.0, 6.0, 1.0, -2.0], &[1, 1, 2, 2]);
        let scaled = scale(&config, &z);
        assert_eq!(scaled.to_vec(), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(unscale(&config, &scaled).to_vec(), z.to_vec());
    }
}
