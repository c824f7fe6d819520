"""The local engine beside llama.cpp on the same weights, in turns: decoding of one request.

python -m bench.engine_llama_cpp --shape 100m
python -m bench.engine_llama_cpp --shape 500m --threads 2 --clock wall --json

Needs `pip install llama-cpp-python`, which builds llama.cpp; exits with 2 where it is not
there. Our int8 stands beside Q8_0, our int4 (groups of 64) beside Q4_0; the product that
gives the logits has 8 bits on both sides.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.engine import ROUNDS, by_engine, decode_s
from local_engine.bench.loops import prompt_of
from local_engine.bench.rows import Row
from local_engine.bench.shapes import SHAPES, write_checkpoint
from local_engine.bench.table import print_table
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.quant import Quantization

PROMPT = 48
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_F32, _Q4_0, _Q8_0 = 0, 2, 8
PAIRS: tuple[tuple[Quantization, int, str, float], ...] = (
    ("int8", _Q8_0, "Q8_0", 0.8),
    ("int4", _Q4_0, "Q4_0", 0.65),
)
"""Our scheme, theirs, its name, and the share of their speed that is wanted."""


def compare(folder: Path, clock: Callable[[], float], threads: int) -> Iterator[Row]:
    """Yield tokens a second of both for each pair, and our share."""
    for scheme, kind, name, target in PAIRS:
        path = folder / f"{name}.gguf"
        write_gguf(folder, path, kind)
        ours = load_model(folder, LoadOptions(scheme, torch.bfloat16))
        mine, other = _in_turns(ours, _llama(path, threads), clock)
        yield Row(f"engine {scheme}, batch 1", 1 / mine, "tok/s")
        yield Row(f"llama.cpp {name}, batch 1", 1 / other, "tok/s")
        yield Row(f"engine {scheme} over llama.cpp {name}", other / mine, "x", target)


def _in_turns(ours: LoadedModel, theirs: Any, clock: Callable[[], float]) -> tuple[float, float]:
    """Return the seconds that a token takes on each side, the median of some rounds."""
    prompt = prompt_of(ours.config.vocab, PROMPT, 0)
    mine, other = [], []
    for _ in range(ROUNDS):
        mine.append(decode_s(lambda n: by_engine(ours, prompt, n), clock))
        other.append(decode_s(lambda n: by_llama(theirs, prompt, n), clock))
    return sorted(mine)[ROUNDS // 2], sorted(other)[ROUNDS // 2]


def _llama(path: Path, threads: int) -> Any:
    llama_cpp: Any = importlib.import_module("llama_cpp")
    return llama_cpp.Llama(
        str(path), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False
    )


def by_llama(model: Any, prompt: tuple[int, ...], tokens: int) -> None:
    """Answer one prompt with llama.cpp, greedily."""
    model.reset()
    # Batched prompts crash 0.3.36 on a processor with AMX; only single tokens are timed anyhow.
    for token in prompt:
        model.eval([token])
    for _ in range(tokens - 1):
        model.eval([model.sample(temp=0.0)])


def write_gguf(folder: Path, path: Path, kind: int) -> None:
    """Write a Llama checkpoint as a file without a tokenizer, its matrices in blocks."""
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    infos, parts, at = [], [], 0
    for name, tensor in tensors.items():
        form = _F32 if tensor.dim() == 1 else kind
        if name.startswith(("lm_head", "model.embed_tokens")):
            form = _Q8_0
        data = _encoded(_paired(name, tensor.float(), config), form)
        infos.append((_name(name), tuple(tensor.shape), form, at))
        parts.append(data + b"\0" * (-len(data) % 32))
        at += len(parts[-1])
    metadata = _metadata(config)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(metadata))
    head += b"".join(_entry(k, v) for k, v in metadata.items())
    for name, shape, form, offset in infos:
        head += _text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", form, offset)
    with path.open("wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        file.writelines(parts)


def _metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    heads = config["num_attention_heads"]
    return {
        "general.architecture": "llama",
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "llama.rope.dimension_count": config["hidden_size"] // heads,
        "llama.rope.freq_base": float(config["rope_theta"]),
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "none",
    }


def _name(name: str) -> str:
    module, _, last = name.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{last}"
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{NAMES[inner]}.{last}"


def _paired(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Lay the pairs that are turned together side by side, as such files have them."""
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    count = heads.get(name.split(".")[-2])
    if count is None:
        return tensor
    return tensor.view(count, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)


def _encoded(tensor: Tensor, form: int) -> bytes:
    """Return a tensor as bytes: fp32, or blocks of 32 with a scale in fp16."""
    if form == _F32:
        return tensor.contiguous().numpy().tobytes()
    blocks = tensor.reshape(-1, 32)
    largest = blocks.abs().amax(1, keepdim=True).clamp_min(1e-8)
    if form == _Q8_0:
        scale = largest / 127
        q = (blocks / scale).round().clamp(-127, 127).to(torch.int8).view(torch.uint8)
    else:
        scale = largest / 8
        whole = ((blocks / scale).round() + 8).clamp(0, 15).to(torch.uint8)
        q = whole[:, :16] | whole[:, 16:] << 4
    halves = scale.to(torch.float16).view(torch.uint8)
    return torch.cat((halves, q), dim=1).numpy().tobytes()


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _entry(key: str, value: str | int | float) -> bytes:
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", 8) + _text(value)
    is_whole = isinstance(value, int)
    return _text(key) + struct.pack("<II" if is_whole else "<If", 4 if is_whole else 6, value)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="100m")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if importlib.util.find_spec("llama_cpp") is None:
        print("llama.cpp is not here: pip install llama-cpp-python builds it", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), options.shape)
        rows = compare(Path(name), clock, options.threads)
        if options.json:
            done = list(rows)
            print(json.dumps({row.name: row.value for row in done}, indent=2))
        else:
            done = print_table(rows)
    return int(any(row.is_met is False for row in done))


if __name__ == "__main__":
    sys.exit(main())
