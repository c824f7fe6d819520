"""A decoding step of few sequences through all layers in one call of the native loops."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from local_engine.attention import AttentionSpec
from local_engine.batch import Batch
from local_engine.config import ModelConfig
from local_engine.feed_forward import GatedBlock
from local_engine.fused.paths import steps_for
from local_engine.kv import PagedKv
from local_engine.native.library import Native, Weight, structure
from local_engine.quant import Linear, PlainLinear, native_product

MOST_ROWS = 8
"""So many rows share one reading of a weight."""

Turn = tuple[Tensor, Tensor]


class _Product(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_long), ("weight", Weight))


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attention_norm", ctypes.c_void_p),
        ("qk_norm", ctypes.c_void_p),
        ("post_attention_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("post_mlp_norm", ctypes.c_void_p),
        ("qkv", _Product),
        ("output", _Product),
        ("gate_up", _Product),
        ("down", _Product),
        ("window", ctypes.c_long),
        ("rope", ctypes.c_long),
    )


_Decoder = structure(
    "_Decoder",
    pointers="layers norm",
    longs="count hidden heads kv_heads size intermediate",
    floats="eps scale cap",
    ints="is_bf16 norm_is_bf16 qk_norm_is_bf16 is_gelu",
)
_Step = structure(
    "_Step",
    pointers="x out cos local_cos sin local_sin slots begins ends pages keys values",
    longs="rows page_size turned local_turned",
    floats="",
    ints="threads",
)


class NativeDecoder:
    """The layers of a decoder as decoder.c reads them; they must live as long as this does."""

    def __init__(
        self,
        native: Native,
        config: ModelConfig,
        layers: Sequence[Any],
        attention: Sequence[AttentionSpec],
        norm: Tensor,
    ) -> None:
        self._native = native
        self._layers = (_Layer * len(layers))(*map(_layer, layers, attention))
        self._norm = norm
        c, first = config, layers[0]
        qk_norm = next((layer.qk_norm for layer in layers if layer.qk_norm is not None), norm)
        self._decoder = _Decoder(
            ctypes.addressof(self._layers), norm.data_ptr(), len(layers), c.hidden, c.heads,
            c.kv_heads, c.head_dim, c.intermediate, c.norm_eps, attention[0].scale,
            attention[0].soft_cap or 0.0, 0, _is_bf16(first.attention_norm), _is_bf16(qk_norm),
            c.activation == "gelu_tanh",
        )  # fmt: skip
        self._cache: weakref.ref[PagedKv] | None = None
        self._pools: tuple[Any, Any] | None = None

    def takes(self, batch: Batch, cache: PagedKv) -> bool:
        """Tell whether a step is one token of each of a few sequences."""
        return cache.is_plain and len(batch.segments) <= MOST_ROWS and batch.walk is not None

    def run(self, x: Tensor, turns: Sequence[Turn], batch: Batch, cache: PagedKv) -> Tensor:
        """Return the normed states after all layers; `x`, the embeddings, is overwritten."""
        walk, pools = batch.walk, self._pools_of(cache)
        assert walk is not None
        out = torch.empty_like(x)
        (cos, sin), (local_cos, local_sin) = turns[0], turns[-1]
        angles = (t.data_ptr() for t in (cos, local_cos, sin, local_sin))
        walks = (place.buffer_info()[0] for place in (walk.begins, walk.ends, walk.pages))
        step = _Step(
            x.data_ptr(), out.data_ptr(), *angles, batch.slots.data_ptr(), *walks,
            *map(ctypes.addressof, pools), len(x), cache.page_size, cos.shape[-1],
            local_cos.shape[-1], self._native.threads,
        )  # fmt: skip
        self._decoder.is_bf16 = _is_bf16(x)
        if self._native.library.frugal_decode(ctypes.byref(self._decoder), ctypes.byref(step)):
            raise MemoryError("no memory for a decoding step")
        return out

    def _pools_of(self, cache: PagedKv) -> tuple[Any, Any]:
        """Return the addresses of each layer's keys and values, found once for a cache."""
        if self._cache is None or self._cache() is not cache or self._pools is None:
            kind = ctypes.c_void_p * len(cache.keys)
            keys, values = (
                kind(*(pool.data_ptr() for pool in pools)) for pools in (cache.keys, cache.values)
            )
            self._cache, self._pools = weakref.ref(cache), (keys, values)
        return self._pools


def native_decoder(
    native: Native | None,
    config: ModelConfig,
    layers: Sequence[Any],
    attention: Sequence[AttentionSpec],
    norm: Tensor,
    dtype: torch.dtype,
) -> NativeDecoder | None:
    """Return the layers as one call where every part of them has a native loop."""
    blocks = [layer.mlp for layer in layers]
    if native is None or config.activation == "gelu" or not layers:
        return None
    if not all(type(block) is GatedBlock for block in blocks):
        return None
    products = [p for r in layers for p in _products(r)]
    widths = (config.hidden, config.head_dim, config.intermediate)
    if any(native_product(p) is None for p in products):
        return None
    # A bf16 weight is multiplied with bf16 rows alone.
    if dtype != torch.bfloat16 and any(isinstance(p, PlainLinear) for p in products):
        return None
    if steps_for(norm.device, dtype, widths) is None:
        return None
    return NativeDecoder(native, config, layers, attention, norm)


def _layer(layer: Any, spec: AttentionSpec) -> _Layer:
    norms = (
        layer.attention_norm,
        layer.qk_norm,
        layer.post_attention_norm,
        layer.mlp_norm,
        layer.post_mlp_norm,
    )
    pointers = (None if norm is None else norm.data_ptr() for norm in norms)
    return _Layer(*pointers, *map(_product, _products(layer)), spec.window or 0, layer.is_local)


def _products(layer: Any) -> tuple[Linear, ...]:
    return layer.qkv, layer.output, layer.mlp.gate_up, layer.mlp.down


def _product(linear: Any) -> _Product:
    found = native_product(linear)
    assert found is not None
    return _Product(found.kind, found.call)


def _is_bf16(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bfloat16
