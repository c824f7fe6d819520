"""The second half of a layer: one gated block, or a mixture of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.config import Activation
from local_engine.fused import Steps, steps_for
from local_engine.quant import Linear

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class FeedForward(Protocol):
    """Map `[tokens, hidden]` to the same shape, each token by itself."""

    def __call__(self, x: Tensor) -> Tensor: ...

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weights take."""


class GatedBlock:
    """One block: down(act(gate x) * up x), gate and up as one product."""

    def __init__(self, gate_up: Linear, down: Linear, activation: Activation) -> None:
        self.gate_up = gate_up
        self.down = down
        self._activation = activation
        self._act = _ACTIVATIONS[activation]

    def with_products(self, gate_up: Linear, down: Linear) -> GatedBlock:
        """Return the same block over other products."""
        return GatedBlock(gate_up, down, self._activation)

    def __call__(self, x: Tensor) -> Tensor:
        both = self.gate_up(x)
        if self._activation != "gelu" and (steps := _steps_of(both)) is not None:
            return self.down(steps.gate(both, is_gelu=self._activation == "gelu_tanh"))
        first, up = both.chunk(2, dim=-1)
        return self.down(self._act(first) * up)

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weights take."""
        return self.gate_up.nbytes + self.down.nbytes


def _steps_of(both: Tensor) -> Steps | None:
    if not both.is_cuda and both.dtype == torch.float32:
        return None  # answers in fp32 are to be, to the bit, what they are alone
    return steps_for(both.device, both.dtype, (both.shape[1] // 2,))


class Mixture:
    """Several blocks, of which a router picks a few for each token (Mixtral, Qwen3-MoE)."""

    def __init__(
        self, router: Tensor, experts: list[GatedBlock], per_token: int, *, is_normalized: bool
    ) -> None:
        self._router = router
        self._experts = experts
        self._per_token = per_token
        self._is_normalized = is_normalized

    def __call__(self, x: Tensor) -> Tensor:
        shares = F.linear(x, self._router).softmax(-1, dtype=torch.float32)
        share, chosen = shares.topk(self._per_token, dim=-1)
        if self._is_normalized:
            share = share / share.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for index in sorted(set(chosen.flatten().tolist())):
            token, place = (chosen == index).nonzero(as_tuple=True)
            part = self._experts[index](x[token]) * share[token, place, None].to(x.dtype)
            out.index_add_(0, token, part)
        return out

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weights take."""
        return self._router.nbytes + sum(e.nbytes for e in self._experts)
