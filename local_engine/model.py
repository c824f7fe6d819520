"""The decoder: families of models are one network with different switches."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.attention import AttentionSpec, attend_written, write_and_attend
from local_engine.batch import Batch
from local_engine.config import ModelConfig
from local_engine.feed_forward import FeedForward
from local_engine.fused import steps_for
from local_engine.fused.native_decoder import NativeDecoder, native_decoder
from local_engine.kv import PagedKv
from local_engine.native import native_for
from local_engine.quant import Linear, PlainLinear
from local_engine.rope import angles, frequencies, rotate


@dataclass(frozen=True, slots=True)
class Layer:
    """One block; the query, key and value products are one.

    Norms after attention and feed-forward are None where the family has none.
    """

    attention_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    output: Linear
    post_attention_norm: Tensor | None
    mlp_norm: Tensor
    mlp: FeedForward
    post_mlp_norm: Tensor | None
    is_local: bool = False


class Decoder:
    """A loaded network: tokens in, logits out, keys and values into the cache."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: Tensor,
        layers: list[Layer],
        norm: Tensor,
        head: Linear,
    ) -> None:
        self.config = config
        self.embedding = embedding
        self.layers = layers
        self.norm = norm
        self.head = head
        ropes = [config.rope] if config.local_rope is None else [config.rope, config.local_rope]
        self._ropes = [(frequencies(r).to(embedding.device), r.magnitude) for r in ropes]
        widths = (config.hidden, config.head_dim)
        self._steps = None if self._is_exact() else steps_for(self.device, self.dtype, widths)
        self._whole: NativeDecoder | None = None
        self._whole_of: list[Layer] | None = None
        self.attention = [
            AttentionSpec(config.attention_scale, window, config.attention_soft_cap)
            for window in config.windows
        ]
        # Rounded as the embedding is: in bf16 the published networks multiply by the rounded one.
        self._embedding_scale = torch.tensor(config.embedding_scale, dtype=embedding.dtype).item()

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of hidden states, keys and values."""
        return self.embedding.dtype

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weights take; a plain tied head counts once."""
        is_shared = isinstance(self.head, PlainLinear) and self.head.weight is self.embedding
        embedding = 0 if is_shared else self.embedding.nbytes
        layers = sum(r.qkv.nbytes + r.output.nbytes + r.mlp.nbytes for r in self.layers)
        return embedding + self.head.nbytes + layers

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: PagedKv, wanted: Tensor) -> Tensor:
        """Run a step; return fp32 logits `[len(wanted), vocab]` of the tokens at `wanted`."""
        x = self.embedding[batch.ids]
        if self._embedding_scale != 1.0:
            x = x * self._embedding_scale
        turns = [self._turn(batch.positions, *rope) for rope in self._ropes]
        whole = self._in_one_call()
        if whole is not None and whole.takes(batch, cache):
            states = whole.run(x, turns, batch, cache)
            return self._logits(states if len(wanted) == len(states) else states[wanted])
        delta = None
        for index, layer in enumerate(self.layers):
            turn = turns[-1] if layer.is_local else turns[0]
            x, normed = self._added(x, delta, layer.attention_norm)
            attended = layer.output(self._attend(index, layer, normed, turn, batch, cache))
            delta = self._after(attended, layer.post_attention_norm)
            x, normed = self._added(x, delta, layer.mlp_norm)
            delta = self._after(layer.mlp(normed), layer.post_mlp_norm)
        if delta is not None:
            x = x + delta
        return self._logits(self._normalize(x[wanted], self.norm))

    def _is_exact(self) -> bool:
        """Tell whether an answer is to be, to the bit, what it is alone, as torch's sums are."""
        is_whole = all(isinstance(layer.qkv, PlainLinear) for layer in self.layers)
        return is_whole and self.dtype == torch.float32 and self.device.type == "cpu"

    def _in_one_call(self) -> NativeDecoder | None:
        """Return all layers as one native call where that can be; found again for new layers."""
        if self._whole_of is not self.layers:
            self._whole_of = self.layers
            self._whole = native_decoder(
                native_for(self.device),
                self.config,
                self.layers,
                self.attention,
                self.norm,
                self.dtype,
            )
        return self._whole

    def _logits(self, normed: Tensor) -> Tensor:
        logits = self.head(normed).float()
        cap = self.config.logit_soft_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _turn(self, positions: Tensor, freqs: Tensor, magnitude: float) -> tuple[Tensor, Tensor]:
        cos, sin = angles(positions, freqs, magnitude)
        return cos.to(self.dtype), sin.to(self.dtype)

    def _added(self, x: Tensor, delta: Tensor | None, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the residual and what was computed last, and its norm."""
        if self._steps is not None:
            return self._steps.add_norm(x, delta, weight, self.config.norm_eps)
        if delta is not None:
            x = x + delta
        return x, self._normalize(x, weight)

    def _normalize(self, x: Tensor, weight: Tensor) -> Tensor:
        if self._steps is not None:
            return self._steps.add_norm(x, None, weight, self.config.norm_eps)[1]
        if weight.dtype == x.dtype:
            if len(x) == 1 and not x.is_cuda:
                return normalized_row(x, weight, self.config.norm_eps)
            return F.rms_norm(x, weight.shape[-1:], weight, self.config.norm_eps)
        # Weights around zero, kept in fp32: rounding 1 + w would lose most of w.
        return F.rms_norm(x.float(), weight.shape[-1:], weight, self.config.norm_eps).to(x.dtype)

    def _after(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else self._normalize(x, weight)

    def _attend(
        self,
        index: int,
        layer: Layer,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        batch: Batch,
        cache: PagedKv,
    ) -> Tensor:
        c = self.config
        qkv = layer.qkv(x).view(len(x), -1, c.head_dim)
        if self._steps is not None and cache.is_plain:
            norm, slots, turn_and_write = layer.qk_norm, batch.slots, self._steps.turn_and_write
            q = turn_and_write(index, qkv, turn, norm, c.norm_eps, slots, cache, c.heads)
            return attend_written(index, q, batch, cache, self.attention[index])
        qk, v = qkv[:, : -c.kv_heads], qkv[:, -c.kv_heads :]
        if layer.qk_norm is not None:
            plain = F.rms_norm(qk.to(layer.qk_norm.dtype), (c.head_dim,), None, c.norm_eps)
            qk = (plain * layer.qk_norm).to(x.dtype)
        turned = rotate(qk, *turn)
        q, k = turned[:, : c.heads], turned[:, c.heads :]
        return write_and_attend(index, q, k, v, batch, cache, self.attention[index])


def normalized_row(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize one row by its root mean square, in two operations where torch takes eight.

    On a CPU each operation on so few numbers costs more than what it computes. In bf16 it
    is rounded once, at the end, as torch does.
    """
    length = torch.linalg.vector_norm(x, dtype=torch.float32).item()
    square = length * length / x.shape[-1] + eps
    scale = 1 / math.sqrt(square) if square > 0 else math.nan
    return torch.addcmul(_nothing(x.shape[-1], x.dtype), x, weight, value=scale)


@functools.cache
def _nothing(width: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(1, width, dtype=dtype)
