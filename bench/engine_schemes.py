"""What a quantization gains in speed: `python -m bench.engine_schemes [--shape 100m]`.

Random weights in a true shape, decoded greedily after a short prompt. All schemes take
turns within one run, a few steps each, so that whatever else the machine does falls on all
of them; the ratio is of the medians, and the best of each stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from local_engine.assembly import build_decoder, expected_shapes
from local_engine.batch import Batch, Segment
from local_engine.config import ModelConfig, parse_config
from local_engine.kv import KvShape, PagedKv
from local_engine.model import Decoder
from local_engine.quant import Linear, Quantization, make_head, make_linear

SHAPES = {
    "100m": (32000, 768, 2048, 12, 12, 4),
    "0.5b": (151936, 896, 4864, 24, 14, 2),
}
SCHEMES: tuple[Quantization, ...] = ("none", "int8", "int4-g32", "int4", "int4-g128")


def config_of(shape: str) -> ModelConfig:
    """Return a Llama of a named shape."""
    vocab, hidden, wide, layers, heads, kv_heads = SHAPES[shape]
    values = {
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 4096,
    }
    return parse_config(Path("random"), values)


class RandomSource:
    """Normal weights in bf16, the same for every scheme."""

    def __init__(self, config: ModelConfig, scheme: Quantization) -> None:
        self._shapes = expected_shapes(config)
        self._scheme: Quantization = scheme

    def tensor(self, name: str) -> Tensor:
        """Draw a tensor."""
        generator = torch.Generator().manual_seed(sum(name.encode()))
        drawn = torch.randn(self._shapes[name], generator=generator) * 0.02
        return (1 + drawn if drawn.dim() == 1 else drawn).to(torch.bfloat16)

    def precise(self, name: str) -> Tensor:
        """Draw a tensor in fp32."""
        return self.tensor(name).float()

    def linear(self, names: Sequence[str], *, has_bias: bool) -> Linear:
        """Draw projections and quantize them."""
        del has_bias
        weight = torch.cat([self.tensor(f"{n}.weight") for n in names])
        return make_linear(weight, None, self._scheme)

    def head(self, weight: Tensor) -> Linear:
        """Quantize the product that gives the logits."""
        return make_head(weight, self._scheme)


class Decoding:
    """Sequences that grow by one token a step."""

    def __init__(self, decoder: Decoder, batch: int, prompt: int) -> None:
        self._decoder = decoder
        self._pages = 1 + (prompt + 1024) // 16
        self._cache = PagedKv(
            KvShape.of(decoder.config), 1 + batch * self._pages, decoder.dtype, decoder.device
        )
        self._tokens = [[3 + n] * prompt for n in range(batch)]
        self._step(self._tokens)

    def run(self, steps: int) -> float:
        """Advance; return processor seconds a step."""
        started = time.process_time()
        for _ in range(steps):
            self._step([t[-1:] for t in self._tokens])
        return (time.process_time() - started) / steps

    def _step(self, new: list[list[int]]) -> None:
        segments = [
            Segment(
                range(1 + n * self._pages, 1 + (n + 1) * self._pages),
                len(self._tokens[n]) - len(tokens),
                tuple(tokens),
            )
            for n, tokens in enumerate(new)
        ]
        batch = Batch(segments, self._cache)
        logits = self._decoder.forward(batch, self._cache, batch.last)
        for tokens, row in zip(self._tokens, logits.argmax(-1).tolist(), strict=True):
            tokens.append(row)


def measure(
    decoders: Mapping[Quantization, Decoder], batch: int, rounds: int, steps: int
) -> dict[str, dict[str, float]]:
    """Return for each scheme milliseconds of processor time a step, and gains over bf16."""
    runs = {s: Decoding(d, batch, 48) for s, d in decoders.items()}
    times: dict[Quantization, list[float]] = {s: [] for s in decoders}
    for _ in range(rounds):
        for scheme, decoding in runs.items():
            times[scheme].append(1e3 * decoding.run(steps))
    middle = {s: statistics.median(t) for s, t in times.items()}
    best = {s: min(t) for s, t in times.items()}
    return {
        scheme: {
            "mib": decoders[scheme].nbytes / 2**20,
            "ms": middle[scheme],
            "gain": middle["none"] / middle[scheme],
            "best_gain": best["none"] / best[scheme],
        }
        for scheme in decoders
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="100m")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--schemes", choices=SCHEMES[1:], nargs="+", default=SCHEMES[1:])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = config_of(options.shape)
    schemes: tuple[Quantization, ...] = ("none", *options.schemes)
    decoders = {s: build_decoder(config, RandomSource(config, s)) for s in schemes}
    found = {b: measure(decoders, b, options.rounds, options.steps) for b in options.batch}
    if options.json:
        print(json.dumps({"shape": options.shape, "threads": options.threads, "batches": found}))
        return
    print(f"shape {options.shape}, {options.threads} thread(s), torch {torch.__version__}")
    print(f"{'batch':>5} {'scheme':10} {'MiB':>6} {'CPU ms/step':>12} {'gain':>6} {'of best':>8}")
    for batch, rows in found.items():
        for scheme, row in rows.items():
            label = "bf16" if scheme == "none" else scheme
            print(
                f"{batch:5} {label:10} {row['mib']:6.0f} {row['ms']:12.2f} {row['gain']:6.2f} "
                f"{row['best_gain']:8.2f}"
            )


if __name__ == "__main__":
    main()
