"""The pocket model's networks besides the VAE, in SDXL's classes and its shape, with smaller numbers."""
import json

import threads  # noqa: F401, first of all

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SIZE, FACTOR, CHANNELS = 128, 8, 8  # SDXL: 1024, 8, 4
TOKENS, LAYERS, WIDTHS, HEAD = 77, 3, (128, 160), 32  # SDXL: 77, 12 and 32, 768 and 1280, 64
TIME_IDS = 32  # width of each of the six numbers' embedding

SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": False, "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "sample_max_value": 1.0, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading",
    "trained_betas": None, "use_karras_sigmas": False,
}


def text_config(width, vocabulary, act):
    # eos_token_id 2 as in SDXL: transformers then pools at the largest id, which <|endoftext|> has
    return CLIPTextConfig(vocab_size=vocabulary, hidden_size=width, intermediate_size=4 * width, projection_dim=width, num_hidden_layers=LAYERS,
                          num_attention_heads=width // HEAD, max_position_embeddings=TOKENS, hidden_act=act, bos_token_id=0, eos_token_id=2,
                          pad_token_id=1)


def unet():
    return UNet2DConditionModel(
        sample_size=SIZE // FACTOR, in_channels=CHANNELS, out_channels=CHANNELS, block_out_channels=(64, 128, 160), layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=1,
        attention_head_dim=[2, 4, 5], cross_attention_dim=sum(WIDTHS), use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=TIME_IDS, projection_class_embeddings_input_dim=WIDTHS[1] + 6 * TIME_IDS, norm_num_groups=16)


class Pocket(torch.nn.Module):
    """Both text encoders and the UNet, named as their folders are."""

    def __init__(self, vocabulary):
        super().__init__()
        self.text_encoder = CLIPTextModel(text_config(WIDTHS[0], vocabulary, "quick_gelu"))
        self.text_encoder_2 = CLIPTextModelWithProjection(text_config(WIDTHS[1], vocabulary, "gelu"))
        self.unet = unet().to(memory_format=torch.channels_last)

    @classmethod
    def open(cls, folder):
        """A pipeline's, in f32."""
        pocket = cls(json.loads((folder / "text_encoder/config.json").read_text())["vocab_size"])
        for name, part in pocket.named_children():
            part.load_state_dict(type(part).from_pretrained(folder / name, torch_dtype=torch.float32).state_dict())
        return pocket

    def encode(self, ids, ids_2):
        """Penultimate states side by side, (B, 77, 288), and the second encoder's pooled output, (B, 160)."""
        one = self.text_encoder(ids, output_hidden_states=True)
        two = self.text_encoder_2(ids_2, output_hidden_states=True)
        return torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1), two.text_embeds

    def forward(self, noisy, timesteps, ids, ids_2, time_ids):
        states, pooled = self.encode(ids, ids_2)
        return self.unet(noisy, timesteps, states, added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}).sample


def alphas_cumprod():
    betas = torch.linspace(SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


@torch.no_grad()
def sample(pocket, ids, noise, steps=50, guidance=7.5):
    """Euler's steps with guidance, at the times of SCHEDULER; ids: (B, 77) twice, the empty prompt's last. Latents, (B, 8, 16, 16)."""
    a = alphas_cumprod().to(noise.device)
    states, pooled = pocket.encode(*ids)
    n = len(noise)
    size = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]], device=noise.device).float().repeat(2 * n, 1)
    states = torch.cat([states[:n], states[n:].expand(n, -1, -1)])
    cond = {"text_embeds": torch.cat([pooled[:n], pooled[n:].expand(n, -1)]), "time_ids": size}
    x = noise
    for i in reversed(range(steps)):
        t = 1000 // steps * i + 1
        after = a[t - 1000 // steps] if i else torch.ones_like(a[0])
        v = pocket.unet(torch.cat([x, x]), t, states, added_cond_kwargs=cond).sample
        v = v[n:] + guidance * (v[:n] - v[n:])
        clean, eps = a[t].sqrt() * x - (1 - a[t]).sqrt() * v, a[t].sqrt() * v + (1 - a[t]).sqrt() * x
        x = after.sqrt() * clean + (1 - after).sqrt() * eps
    return x
