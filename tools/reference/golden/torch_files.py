"""PyTorch's files of weights -> crates/sdxl/tests/golden/torch_files/: `plain.bin`, with tensors of every dtype and layout that is read,
and `plain.safetensors`, the same tensors on their own; files with a state dict within a dict; and files that are refused."""

import zipfile
from collections import OrderedDict

import torch

from common import SDXL_GOLDEN, gen, save

FOLDER = SDXL_GOLDEN / "torch_files"


class Caller:
    """Whoever unpickles this runs a program."""

    def __reduce__(self):
        import os
        return os.system, ("echo called",)


def tensors():
    g = gen(1)
    rand = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    matrix, shared, image = rand(5, 7), rand(4, 6), rand(3, 4, 2, 5)
    return OrderedDict(
        f32=rand(3, 5),
        f16=rand(4, 2).half(),
        bf16=rand(2, 9).bfloat16(),
        i64=torch.arange(6).reshape(1, 6),
        scalar=torch.tensor(-2.5),
        empty=torch.zeros(0, 3),
        transposed=matrix.t(),
        channels_last=image.permute(0, 3, 1, 2),
        tied=shared,
        tied_too=shared,
        rows=shared[1:3],
        columns=shared[:, 2:5],
        every_other=shared.flatten()[1::3],
        one_row=shared[3:4].t()[:, 0:1],
        half_transposed=rand(3, 4).half().t(),
        parameter=torch.nn.Parameter(rand(2, 3)).detach(),
    )


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    state = tensors()
    written = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    save(FOLDER / "plain.safetensors", {key: value.clone() for key, value in written.items()})
    torch.save(state, FOLDER / "plain.bin")
    linear = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for p in linear.parameters():
            p.copy_(torch.arange(p.numel()).reshape(p.shape))
    torch.save(linear.state_dict(), FOLDER / "module.bin")  # with `_metadata`
    other = {"weight": torch.full((2, 3), 9.0), "bias": torch.full((2,), 9.0)}
    torch.save({"params": other, "params_ema": linear.state_dict()}, FOLDER / "params_ema.pth")
    torch.save({"params": linear.state_dict()}, FOLDER / "params.pth")
    # What is refused.
    torch.save(linear.state_dict(), FOLDER / "old_format.pth", _use_new_zipfile_serialization=False)
    torch.save({"weight": Caller()}, FOLDER / "calls.pth")
    torch.save(linear, FOLDER / "whole_module.pth")
    torch.save([torch.zeros(2)], FOLDER / "list.pth")
    torch.save({"weight": torch.zeros(2, 3), "epoch": 7}, FOLDER / "number.pth")
    torch.save({"weight": torch.zeros(2, 3, dtype=torch.float64)}, FOLDER / "f64.pth")
    torch.save(linear.state_dict(), FOLDER / "protocol_4.pth", pickle_protocol=4)
    torch.save({"weight": torch.zeros(1).expand(1000, 1000)}, FOLDER / "expanded.pth")
    with zipfile.ZipFile(FOLDER / "module.bin") as plain, zipfile.ZipFile(FOLDER / "compressed.pth", "w") as out:
        for name in plain.namelist():
            kind = zipfile.ZIP_DEFLATED if "/data/" in name else zipfile.ZIP_STORED
            out.writestr(zipfile.ZipInfo(name), plain.read(name), kind)
    with zipfile.ZipFile(FOLDER / "no_weights.zip", "w") as out:
        out.writestr(zipfile.ZipInfo("readme/readme.txt"), "no weights")


if __name__ == "__main__":
    main()
