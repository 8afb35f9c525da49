"""Pictures of the pocket model changed in one thing each -> crates/sdxl/tests/golden/pocket/*.png, for the requests of
crates/sdxl/tests/pocket_variants.rs. Made again whenever the model's weights are others."""


import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from common import ROOT, SDXL_GOLDEN, gen

MODEL = ROOT / "models/pocket"
REQUEST = dict(prompt="a red fox in the snow", num_inference_steps=6, guidance_scale=5.0, width=128, height=128)


def plain_middle_block(unet):
    """A UNet with one ResNet in the middle, whose second convolution is made 64 times as strong, so that it shows."""
    small = UNet2DConditionModel.from_config(unet.config, mid_block_type="UNetMidBlock2D")
    kept = {key: value for key, value in unet.state_dict().items() if key in small.state_dict()}
    small.load_state_dict(kept)
    small.mid_block.resnets[0].conv2.weight.data *= 64
    return small


def no_middle_block(unet):
    small = UNet2DConditionModel.from_config(unet.config, mid_block_type=None)
    small.load_state_dict({key: value for key, value in unet.state_dict().items() if not key.startswith("mid_block.")})
    return small


def pipeline(unet_of=None, **fields):
    """The pipeline in f32, with its UNet changed by a function, or fields of its configuration set."""
    pipe = StableDiffusionXLPipeline.from_pretrained(MODEL, dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    if unet_of:
        pipe.unet = unet_of(pipe.unet).eval()
    pipe.register_to_config(**fields)
    return pipe


def write(name, pipe, **more):
    image = pipe(**REQUEST, **more, generator=gen(3)).images[0]
    image.save(SDXL_GOLDEN / "pocket" / f"{name}.png")


def main():
    write("plain_middle_block", pipeline(plain_middle_block), negative_prompt="")
    write("no_middle_block", pipeline(no_middle_block), negative_prompt="")
    write("zeros", pipeline(force_zeros_for_empty_prompt=True))


if __name__ == "__main__":
    main()
