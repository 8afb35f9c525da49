"""Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) for matrices and convolutions, AdamW for the rest.

A step of a matrix is its momentum with all singular values made one; times 0.2·sqrt(longer side) it is as large as one of
AdamW (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that both share a learning rate. Fewer steps, on a CPU, are hours.
"""
import torch


def orthogonal(matrices, rounds=5):
    """Newton-Schulz: (N, rows, columns), each with its singular values near one."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    a, product = x @ x.mT, None
    eye = torch.eye(a.shape[1], device=a.device)
    for i in range(rounds):  # on the small square x·xᵀ, whose polynomials commute; x itself is multiplied once
        q = 3.4445 * eye - 4.775 * a + 2.0315 * a @ a
        product = q if product is None else q @ product
        if i < rounds - 1:
            a = q @ a @ q
    x = product @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, matrices, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(matrices, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = {}  # those of one shape together: many small products are one call
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for shape, some in alike.items():
                grads = [p.grad.flatten(1) for p in some]
                memory = [self.state[p].setdefault("momentum", torch.zeros_like(g)) for p, g in zip(some, grads)]
                torch._foreach_lerp_(memory, grads, 1 - group["momentum"])
                update = orthogonal(torch.stack(grads).lerp(torch.stack(memory), group["momentum"]))
                update *= -group["lr"] * 0.2 * max(update.shape[1:]) ** 0.5
                torch._foreach_mul_(some, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(some, [u.view(shape) for u in update])


class Both:
    """Muon and AdamW as one optimizer. Embeddings, biases, norms and the layers named in `ends` go to AdamW."""

    def __init__(self, model, lr, ends):
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        inner = [p for n, p in named if p.ndim > 1 and "embedding." not in n and not any(e in n for e in ends)]
        chosen = {id(p) for p in inner}
        rest = [p for _, p in named if id(p) not in chosen]
        self.parts = [Muon(inner, lr), torch.optim.AdamW(rest, lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)]

    @property
    def param_groups(self):
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self):
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self):
        for part in self.parts:
            part.step()

    def state_dict(self):
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state):
        for part, saved in zip(self.parts, state["parts"]):
            part.load_state_dict(saved)
