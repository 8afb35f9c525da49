"""A training's state on disk, replaced whole or not at all, and the average of weights."""
import copy
import os

import torch


class Average:
    """The exponential moving average of a model's weights; young averages follow faster."""

    def __init__(self, model, decay):
        self.model, self.decay, self.updates = copy.deepcopy(model).eval().requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)

    def state_dict(self):
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


def save(folder, step, seconds, **parts):
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"step": step, "seconds": seconds, **state}, folder / "state.tmp")
    os.replace(folder / "state.tmp", folder / "state.pt")


def restore(folder, **parts):
    """Loads the parts if there is a checkpoint; the steps and seconds that it has behind it."""
    path = folder / "state.pt"
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    print(f"going on from step {state['step']}", flush=True)
    return state["step"], state["seconds"]
