"""Low-rank adapters (LoRA, PEFT's files): small changes of the weights, several in one batch.

An adapter adds s B(A x) to products of the decoder, for the rows of its own requests
alone. Only safetensors is read. Whoever may ask for an adapter by name may have it
loaded from the one directory that was named at the start, from nowhere else.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_engine.assembly import expected_shapes
from local_engine.config import ModelConfig
from local_engine.errors import CheckpointError, InvalidRequest, UnknownAdapter
from local_engine.feed_forward import GatedBlock
from local_engine.fields import Fields, read_json
from local_engine.model import Decoder
from local_engine.quant import Linear
from local_engine.weights import Weights, open_weights_file

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_KEY = re.compile(r"(?:.*\.)?layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])(?:\.default)?\.weight")
_MAX_RANK = 1024
_serials = itertools.count(1)

Place = tuple[int, str]
"""A product of the decoder: its layer, and `qkv`, `output`, `gate_up` or `down`."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A loaded adapter; `key` is never used again, also if one of its name is loaded anew.

    For each product that it changes, A `[rank, in]` and B `[out, rank]`, scaled.
    """

    name: str
    key: str
    changes: Mapping[Place, tuple[Tensor, Tensor]]


class AdaptedLinear:
    """A product, with what the adapters of this step add to their rows."""

    def __init__(self, base: Linear, place: Place, rows: AdapterRows) -> None:
        self.base = base
        self._place = place
        self._rows = rows

    def __call__(self, x: Tensor) -> Tensor:
        out = self.base(x)
        for adapter, rows in self._rows.current:
            change = adapter.changes.get(self._place)
            if change is not None:
                down, up = change
                out.index_add_(0, rows, (x[rows] @ down.T) @ up.T)
        return out

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weight takes, without adapters."""
        return self.base.nbytes


class AdapterRows:
    """Which rows of the step under way belong to which adapter; set by the engine's thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.current: list[tuple[Adapter, Tensor]] = []

    def set(self, segments: Iterable[tuple[Adapter | None, int]]) -> None:
        """Take the adapter and the number of rows of each segment, in their order."""
        rows: dict[str, tuple[Adapter, list[int]]] = {}
        begin = 0
        for adapter, count in segments:
            if adapter is not None:
                rows.setdefault(adapter.key, (adapter, []))[1].extend(range(begin, begin + count))
            begin += count
        self.current = [
            (adapter, torch.tensor(own, device=self._device)) for adapter, own in rows.values()
        ]


class Adapters:
    """The adapters of one decoder, by name; may be changed while requests run.

    A request keeps the adapter that it began with.
    """

    def __init__(self, decoder: Decoder, directory: Path) -> None:
        """Make a decoder ready for adapters that lie in a directory."""
        self._config = decoder.config
        self._dtype, self._device = decoder.dtype, decoder.device
        self._directory = directory
        self._lock = threading.Lock()
        self._loaded: dict[str, Adapter] = {}
        self.rows = AdapterRows(decoder.device)
        decoder.layers = [
            dataclasses.replace(
                layer,
                qkv=AdaptedLinear(layer.qkv, (n, "qkv"), self.rows),
                output=AdaptedLinear(layer.output, (n, "output"), self.rows),
                mlp=_adapted_block(layer.mlp, n, self.rows),
            )
            for n, layer in enumerate(decoder.layers)
        ]

    @property
    def names(self) -> list[str]:
        """Return the names of those that are loaded."""
        return sorted(self._loaded)

    def find(self, name: str) -> Adapter | None:
        """Return a loaded adapter."""
        return self._loaded.get(name)

    def load(self, name: str) -> Adapter:
        """Load an adapter of the directory, anew if it is loaded; raises `CheckpointError`."""
        if not _NAME.fullmatch(name):
            raise InvalidRequest("An adapter's name is letters, digits, '.', '_' and '-'.", "name")
        path = self._directory / name
        if not path.is_dir():
            raise UnknownAdapter(name)
        adapter = read_adapter(path, name, self._config, self._dtype, self._device)
        with self._lock:
            self._loaded = {**self._loaded, name: adapter}
        return adapter

    def unload(self, name: str) -> None:
        """Forget an adapter; requests that run with it end with it."""
        with self._lock:
            if name not in self._loaded:
                raise UnknownAdapter(name)
            self._loaded = {k: v for k, v in self._loaded.items() if k != name}


def read_adapter(
    path: Path, name: str, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> Adapter:
    """Read a directory as PEFT writes it; raises `CheckpointError`."""
    settings = Fields(path / "adapter_config.json", read_json(path / "adapter_config.json"))
    _check_kind(settings)
    weights = open_weights_file(path / "adapter_model.safetensors")
    found = _pairs(path, weights, config)
    changes = {}
    for place, parts in _by_product(found, config).items():
        downs, ups = zip(*(_read(weights, settings, p, dtype, device) for p in parts), strict=True)
        total = sum(size for _, size, _ in _layout(config, place))
        down = torch.cat(downs)
        up = torch.zeros(total, len(down), dtype=dtype, device=device)
        column = 0
        for part, one in zip(parts, ups, strict=True):
            up[part.begin : part.begin + len(one), column : column + one.shape[1]] = one
            column += one.shape[1]
        changes[place] = (down, up)
    return Adapter(name, f"{name}#{next(_serials)}", changes)


@dataclass(frozen=True, slots=True)
class _Part:
    """One changed projection: its two tensors, and where it begins in its product."""

    down: str
    up: str
    begin: int


def _check_kind(settings: Fields) -> None:
    if settings.text("peft_type", "LORA") != "LORA":
        raise settings.fail("peft_type", "LORA", settings.values["peft_type"])
    for key in ("use_dora", "fan_in_fan_out"):
        if settings.flag(key, default=False):
            raise settings.fail(key, "false, which is what is built here", True)
    if settings.values.get("modules_to_save"):
        raise settings.fail("modules_to_save", "none", settings.values["modules_to_save"])
    if settings.text("bias", "none") != "none":
        raise settings.fail("bias", "none", settings.values["bias"])


def _pairs(path: Path, weights: Weights, config: ModelConfig) -> dict[tuple[int, str], _Part]:
    """Find the projections that an adapter changes, checked against the decoder's shapes."""
    names: dict[tuple[int, str], dict[str, str]] = {}
    for name in weights:
        match = _KEY.fullmatch(name)
        if match is None:
            raise CheckpointError(path, f"tensor {name} is none of a LoRA that can be served here")
        names.setdefault((int(match[1]), match[2]), {})[match[3]] = name
    shapes = expected_shapes(config)
    found = {}
    for (layer, module), pair in names.items():
        shape = shapes.get(f"model.layers.{layer}.{module}.weight")
        begin = _begin(config, module)
        if shape is None or begin is None or set(pair) != {"A", "B"}:
            raise CheckpointError(path, f"layers.{layer}.{module} does not fit this model")
        down, up = weights.entry(pair["A"]), weights.entry(pair["B"])
        assert down is not None
        assert up is not None
        is_sound = len(down.shape) == len(up.shape) == 2 and down.shape[0] == up.shape[1]
        if not is_sound or (up.shape[0], down.shape[1]) != shape or down.shape[0] > _MAX_RANK:
            raise CheckpointError(path, f"layers.{layer}.{module}: its shapes do not fit {shape}")
        found[layer, module] = _Part(pair["A"], pair["B"], begin)
    return found


def _by_product(
    found: Mapping[tuple[int, str], _Part], config: ModelConfig
) -> dict[Place, list[_Part]]:
    products: dict[Place, list[_Part]] = {}
    for (layer, module), part in sorted(found.items()):
        products.setdefault((layer, _PRODUCTS[module.partition(".")[2]]), []).append(part)
    return products


_PRODUCTS = {
    "qkv_proj": "qkv",
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "o_proj": "output",
    "gate_up_proj": "gate_up",
    "gate_proj": "gate_up",
    "up_proj": "gate_up",
    "down_proj": "down",
}


def _layout(c: ModelConfig, place: Place) -> Iterator[tuple[str, int, int]]:
    """Yield the projections of a product: name, rows, first row."""
    wide = c.intermediate
    parts: dict[str, list[tuple[str, int]]] = {
        "qkv": [("q_proj", c.q_size), ("k_proj", c.kv_size), ("v_proj", c.kv_size)],
        "output": [("o_proj", c.hidden)],
        "gate_up": [("gate_proj", wide), ("up_proj", wide)],
        "down": [("down_proj", c.hidden)],
    }
    begin = 0
    for name, rows in parts[place[1]]:
        yield name, rows, begin
        begin += rows


def _begin(config: ModelConfig, module: str) -> int | None:
    """Return the first row of a projection in its product, None for what is no product here."""
    name = module.partition(".")[2]
    product = _PRODUCTS.get(name)
    if product is None:
        return None
    if name in ("qkv_proj", "gate_up_proj"):
        return 0
    return next(begin for part, _, begin in _layout(config, (0, product)) if part == name)


def _read(
    weights: Weights, settings: Fields, part: _Part, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    down = weights.read(part.down, torch.float32)
    scale = _scale(settings, len(down))
    up = weights.read(part.up, torch.float32) * scale
    return down.to(device, dtype), up.to(device, dtype)


def _scale(settings: Fields, rank: int) -> float:
    """Return alpha / r, or alpha / √r for rank-stabilized adapters."""
    if settings.values.get("alpha_pattern"):
        raise settings.fail("alpha_pattern", "none", settings.values["alpha_pattern"])
    alpha = settings.number("lora_alpha", 0.0, 1e6, 8.0)
    return alpha / (math.sqrt(rank) if settings.flag("use_rslora", default=False) else rank)


def _adapted_block(mlp: object, layer: int, rows: AdapterRows) -> GatedBlock:
    if not isinstance(mlp, GatedBlock):
        raise CheckpointError("adapters", "adapters of mixtures of experts are not built here")
    return mlp.with_products(
        AdaptedLinear(mlp.gate_up, (layer, "gate_up"), rows),
        AdaptedLinear(mlp.down, (layer, "down"), rows),
    )
