"""Goldens of the samplers -> crates/sdxl/tests/golden/samplers.safetensors.

A case `<wire name>.<variant>.<steps>` holds `timesteps`, `sigmas` (where the sampler has them), `init_noise_sigma` and
`x` (calls + 1, 1, 4, 4, 6): the noisy start, then the latents (NCHW) after every call of `step`. Its metadata is the
scheduler_config.json that it was built from. The start is randn(1, 4, 4, 6) * init_noise_sigma from
the CPU generator of seed `seed`, which then gives the ancestral noise. The network is `fake_model`.

A case `<wire name>.strength.<steps>.<percent>` begins from a picture: its latents and the noise are the first two draws, `start` the
noisy latents, `x` the result."""

import inspect
import json
import math

import torch

from common import SDXL_GOLDEN, gen, save
from make_tiny import PUBLISHED_SAMPLERS, SAMPLERS, SDXL_SCHEDULER, make_sampler

SEED = 7
SHAPE = (1, 4, 4, 6)
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
VARIANTS = {  # name -> (changes to SDXL's config, or None for an empty config, steps)
    "sdxl": ({}, (1, 2, 3, 5, 10, 25)),
    "v_prediction": ({"prediction_type": "v_prediction"}, (4, 9)),
    "trailing": ({"timestep_spacing": "trailing"}, (4, 7)),
    "linspace": ({"timestep_spacing": "linspace"}, (4, 9)),
    "zero_snr": (ZERO_SNR, (4, 9)),
    "linear": ({"beta_schedule": "linear"}, (5,)),
    "squaredcos": ({"beta_schedule": "squaredcos_cap_v2"}, (5,)),
    "prk": ({"skip_prk_steps": False}, (3, 5)),
    "alpha_to_one": ({"set_alpha_to_one": True, "steps_offset": 0}, (5,)),
    "karras": ({"use_karras_sigmas": True}, (6,)),
    "class_defaults": (None, (5,)),  # every key missing: each class has its own defaults
    "many": ({}, (50,)),
}


MORE_VARIANTS = {  # of the samplers beyond the published ones
    "sdxl": ({}, (1, 2, 4, 10)),
    "v_prediction": ({"prediction_type": "v_prediction"}, (4,)),
    "sample": ({"prediction_type": "sample"}, (4,)),
    "trailing": ({"timestep_spacing": "trailing"}, (4,)),
    "zero_snr": (ZERO_SNR, (4, 9)),
    "class_defaults": (None, (5,)),
    "many": ({}, (30,)),
}
OWN_VARIANTS = {  # of single samplers
    "LCM": {
        "original": ({"original_inference_steps": 20, "timestep_scaling": 0.003}, (3, 7)),
        "clipped": ({"clip_sample": True, "clip_sample_range": 0.8}, (4,)),
    },
    "TCD": {
        "original": ({"original_inference_steps": 20}, (3, 7)),
        "eta_0": ({"eta": 0.0}, (4,)),
        "eta_1": ({"eta": 1.0}, (4,)),
    },
    "UniPC": {
        "karras": ({"use_karras_sigmas": True}, (6,)),
        "order_1": ({"solver_order": 1}, (6,)),
        "bh1": ({"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, (3, 6)),
        "order_2_final": ({"lower_order_final": False, "final_sigmas_type": "sigma_min"}, (3, 6)),
        "squaredcos": ({"beta_schedule": "squaredcos_cap_v2"}, (5,)),
    },
    "DPMSolverMultistepSDE": {
        "karras": ({"use_karras_sigmas": True}, (6,)),
        "order_1": ({"solver_order": 1}, (6,)),
        "sigma_min": ({"final_sigmas_type": "sigma_min"}, (6, 20)),
    },
}
STRENGTHS = (0.3, 0.58, 0.8, 1.0)
STRENGTH_VARIANTS = {"strength": ({}, (10, 50)), "strength_zero_snr": (ZERO_SNR, (9,))}


def fake_model(x, t):
    """Smooth, bounded, and different at every timestep; computed in f32."""
    return x / torch.sqrt(1 + x * x) * 0.8 + 0.1 * math.cos(float(t) / 100)


def variants(name):
    if name in PUBLISHED_SAMPLERS:
        return VARIANTS
    return MORE_VARIANTS | OWN_VARIANTS[name]


def run(sampler, steps, **extra):
    g = gen(SEED)
    sampler.set_timesteps(steps)
    timesteps = sampler.timesteps
    sigmas = getattr(sampler, "sigmas", None)
    sigma0 = torch.as_tensor(sampler.init_noise_sigma, dtype=torch.float32)
    x = torch.randn(SHAPE, generator=g) * sigma0
    takes_generator = "generator" in inspect.signature(sampler.step).parameters
    extra |= {"generator": g} if takes_generator else {}
    trajectory = [x]
    for t in timesteps:
        out = fake_model(sampler.scale_model_input(x, t), t)
        x = sampler.step(out, t, x, **extra).prev_sample
        trajectory.append(x)
    result = {"timesteps": timesteps.float(), "init_noise_sigma": sigma0, "x": torch.stack(trajectory)}
    if sigmas is not None:
        result["sigmas"] = sigmas.float()
    return result


def run_strength(sampler, steps, strength):
    """The denoising of diffusers' image-to-image pipeline."""
    g = gen(SEED)
    x0, noise = torch.randn(SHAPE, generator=g), torch.randn(SHAPE, generator=g)
    sampler.set_timesteps(steps)
    first = (steps - min(int(steps * strength), steps)) * sampler.order
    timesteps = sampler.timesteps[first:]
    if type(sampler).__name__ == "PNDMScheduler":  # diffusers slices the list that has its second timestep twice
        once = torch.cat([sampler.timesteps[:1], sampler.timesteps[2:]])[first:]
        timesteps = torch.cat([once[:2], once[1:]])
    if hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(first)
    start = x = sampler.add_noise(x0, noise, timesteps[:1])
    extra = {"generator": g} if "generator" in inspect.signature(sampler.step).parameters else {}
    for t in timesteps:
        x = sampler.step(fake_model(sampler.scale_model_input(x, t), t), t, x, **extra).prev_sample
    return {"timesteps": timesteps.float(), "start": start, "x": x}


def strengths(tensors, meta):
    for variant, (change, counts) in STRENGTH_VARIANTS.items():
        for name in SAMPLERS:
            for steps in counts:
                for strength in STRENGTHS:
                    case = f"{name}.{variant}.{steps}.{round(strength * 100)}"
                    config = SDXL_SCHEDULER | change
                    meta[case] = json.dumps(config)
                    result = run_strength(make_sampler(name, config), steps, strength)
                    tensors |= {f"{case}.{key}": value for key, value in result.items()}


def main():
    tensors, meta = {}, {"seed": str(SEED), "shape": list(SHAPE)}
    for name in SAMPLERS:
        for variant, (change, counts) in variants(name).items():
            config = {} if change is None else SDXL_SCHEDULER | change
            extra = {key: value for key, value in (change or {}).items() if key == "eta"}  # an argument of TCD's step
            for steps in counts:
                case = f"{name}.{variant}.{steps}"
                try:
                    sampler = make_sampler(name, config)
                    result = run(sampler, steps, **extra)
                except Exception as e:  # noqa: BLE001  diffusers itself refuses some; the list is part of the golden
                    print(f"diffusers cannot: {case}: {type(e).__name__}: {str(e)[:100]}")
                    continue
                meta[case] = json.dumps(config)
                tensors |= {f"{case}.{k}": v for k, v in result.items()}
                if not result["x"].isfinite().all():
                    print("not finite:", case)
    for variant in ("sdxl", "linear", "squaredcos", "zero_snr"):
        config = SDXL_SCHEDULER | VARIANTS[variant][0]
        tensors[f"alphas_cumprod.{variant}"] = make_sampler("DDIM", config).alphas_cumprod
    strengths(tensors, meta)
    save(SDXL_GOLDEN / "samplers.safetensors", tensors, meta)


if __name__ == "__main__":
    main()
