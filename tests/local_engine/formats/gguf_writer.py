"""A writer of GGUF files by the public description of the format, for tests alone."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

TYPE_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14, "BF16": 30}
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA = NAMES | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
PHI = NAMES | {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
MOE = NAMES | {"mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp"}
NAMES_OF = {
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi3": PHI,
    "qwen3_moe": MOE,
    "mixtral": MOE,
}
ARCHITECTURES = {"gemma3_text": "gemma3", "qwen3_moe": "qwen3moe", "mixtral": "llama"}
EXPERT = re.compile(r"(model\.layers\.\d+)\.\w+\.experts\.(\d+)\.(\w+)\.weight")
EXPERTS = {
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
    "w1": "ffn_gate_exps",
    "w3": "ffn_up_exps",
    "w2": "ffn_down_exps",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def quantize(weight: torch.Tensor, kind: str) -> tuple[bytes, torch.Tensor]:
    """Return the bytes of a matrix `[rows, in]` in blocks, and what they stand for.

    Each block is put together from integers one by one, and expanded by the formula.
    """
    if kind in ("F32", "F16", "BF16"):
        dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
        low = weight.to(dtype)
        return low.contiguous().view(torch.uint8).numpy().tobytes(), low.float()
    make = {"Q4_0": _q4_0, "Q8_0": _q8_0, "Q4_K": _q4_k, "Q6_K": _q6_k}[kind]
    size = 256 if kind.endswith("K") else 32
    blocks = weight.float().numpy().reshape(-1, size)
    made = [make(block) for block in blocks]
    values = np.array([v for _, v in made], dtype=np.float32).reshape(weight.shape)
    return b"".join(b for b, _ in made), torch.from_numpy(values)


def _half(value: float) -> float:
    return float(np.float16(value)) or 1.0  # of zeros alone, any scale


def _q4_0(block: np.ndarray) -> tuple[bytes, np.ndarray]:
    d = _half(np.abs(block).max() / 8)
    q = np.clip(np.round(block / d) + 8, 0, 15).astype(int)
    packed = bytes(int(q[i] | q[i + 16] << 4) for i in range(16))
    return struct.pack("<e", d) + packed, (q - 8) * d


def _q8_0(block: np.ndarray) -> tuple[bytes, np.ndarray]:
    d = _half(np.abs(block).max() / 127)
    q = np.clip(np.round(block / d), -128, 127).astype(int)
    return struct.pack("<e32b", d, *q), q * d


def _q4_k(block: np.ndarray) -> tuple[bytes, np.ndarray]:
    subs = block.reshape(8, 32)
    low = np.maximum(-subs.min(1), 0)
    step = (subs.max(1) + low) / 15
    d, dmin = _half(step.max() / 63), _half(low.max() / 63)
    sc = np.clip(np.round(step / d), 1, 63).astype(int)
    m = np.clip(np.round(low / dmin), 0, 63).astype(int)
    q = np.clip(np.round((subs + (dmin * m)[:, None]) / (d * sc)[:, None]), 0, 15).astype(int)
    scales = [0] * 12
    for j in range(4):
        scales[j] = int(sc[j] | (sc[j + 4] >> 4) << 6)
        scales[j + 4] = int(m[j] | (m[j + 4] >> 4) << 6)
        scales[j + 8] = int((sc[j + 4] & 15) | (m[j + 4] & 15) << 4)
    packed = bytes(int(q[2 * r, i] | q[2 * r + 1, i] << 4) for r in range(4) for i in range(32))
    values = (d * sc)[:, None] * q - (dmin * m)[:, None]
    return struct.pack("<ee", d, dmin) + bytes(scales) + packed, values.reshape(-1)


def _q6_k(block: np.ndarray) -> tuple[bytes, np.ndarray]:
    subs = block.reshape(16, 16)
    step = np.abs(subs).max(1) / 31
    d = _half(step.max() / 127)
    sc = np.clip(np.round(step / d), 1, 127).astype(int)
    q = np.clip(np.round(subs / (d * sc)[:, None]) + 32, 0, 63).astype(int)
    flat = q.reshape(-1)
    low, high = bytearray(128), bytearray(64)
    for i, value in enumerate(flat):
        half, rest = divmod(i, 128)
        quarter, lane = divmod(rest, 32)
        low[64 * half + lane + 32 * (quarter % 2)] |= int(value & 15) << (4 if quarter >= 2 else 0)
        high[32 * half + lane] |= int(value >> 4) << (2 * quarter)
    values = ((d * sc)[:, None] * (q - 32)).reshape(-1)
    return bytes(low) + bytes(high) + struct.pack("<16be", *sc, d), values


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, value: Any) -> bytes:
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    inner = {str: 8, int: 5, float: 6}[type(value[0])]
    head = text(key) + struct.pack("<IIQ", 9, inner, len(value))
    if inner == 8:
        return head + b"".join(text(v) for v in value)
    return head + struct.pack(f"<{len(value)}{'i' if inner == 5 else 'f'}", *value)


Info = tuple[str, tuple[int, ...], int, int]


def container(metadata: dict[str, Any], infos: list[Info], data: bytes) -> bytes:
    """Put a file together; an info is a name, a shape outermost first, a type, an offset."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(metadata))
    head += b"".join(entry(k, v) for k, v in metadata.items())
    for name, shape, kind, offset in infos:
        head += text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, offset)
    return head + b"\0" * (-len(head) % 32) + data


def write_gguf(directory: Path, kind: str, path: Path, **metadata: Any) -> dict[str, torch.Tensor]:
    """Write a Hugging Face checkpoint as a file; return the tensors that it stands for."""
    values = json.loads((directory / "config.json").read_text())
    name = values["model_type"]
    is_llama, is_gemma = name in ("llama", "mixtral"), name.startswith("gemma")
    infos: list[Info] = []
    data, stands_for = b"", {}
    stacked: dict[str, list[tuple[str, torch.Tensor]]] = {}
    tensors = load_file(directory / "model.safetensors")
    for hf in sorted(tensors, key=lambda n: [int(p) if p.isdigit() else p for p in n.split(".")]):
        tensor = tensors[hf]
        if expert := EXPERT.fullmatch(hf):
            place = f"blk.{expert[1].rpartition('.')[2]}.{EXPERTS[expert[3]]}.weight"
            stacked.setdefault(place, []).append((hf, tensor.float()))
            continue
        stored = tensor.float() + (1.0 if is_gemma and "norm" in hf else 0.0)
        heads = {"q": values["num_attention_heads"], "k": values["num_key_value_heads"]}
        match = re.search(r"self_attn\.([qk])_proj", hf) if is_llama else None
        if match:  # pairs side by side, as files of Llama's kind have them
            rows = len(stored)
            stored = stored.view(heads[match[1]], 2, rows // heads[match[1]] // 2, -1)
            stored = stored.transpose(1, 2).reshape(tensor.shape)
        form = kind if stored.dim() == 2 else "F32"
        encoded, meant = quantize(stored, form)
        if match:
            meant = meant.view(heads[match[1]], -1, 2, *meant.shape[1:]).transpose(1, 2)
        meant = meant - (1.0 if is_gemma and "norm" in hf else 0.0)
        stands_for[hf] = meant.reshape(tensor.shape).contiguous()
        infos.append((_name(hf, name), tuple(tensor.shape), TYPE_IDS[form], len(data)))
        data += encoded + b"\0" * (-len(encoded) % 32)
    for place, experts in stacked.items():
        made = [quantize(tensor, kind) for _, tensor in experts]
        stands_for |= {hf: meant for (hf, _), (_, meant) in zip(experts, made, strict=True)}
        shape = (len(experts), *experts[0][1].shape)
        infos.append((place, shape, TYPE_IDS[kind], len(data)))
        encoded = b"".join(part for part, _ in made)
        data += encoded + b"\0" * (-len(encoded) % 32)
    metadata = _metadata(values, ARCHITECTURES.get(name, name)) | metadata
    for place, factors in _factors(values).items():
        infos.append((place, (len(factors),), 0, len(data)))
        encoded = struct.pack(f"<{len(factors)}f", *factors)
        data += encoded + b"\0" * (-len(encoded) % 32)
    path.write_bytes(container(metadata, infos, data))
    return stands_for


def _factors(values: dict[str, Any]) -> dict[str, list[float]]:
    rope = values.get("rope_parameters") or {}
    kinds = ("short", "long")
    return {f"rope_factors_{k}.weight": rope[f"{k}_factor"] for k in kinds if f"{k}_factor" in rope}


def _name(hf: str, model_type: str) -> str:
    module, _, last = hf.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{last}"
    _, _, index, inner = module.split(".", 3)
    return f"blk.{index}.{NAMES_OF.get(model_type, NAMES)[inner]}.{last}"


def _metadata(values: dict[str, Any], name: str) -> dict[str, Any]:
    metadata = {
        "general.architecture": name,
        f"{name}.block_count": values["num_hidden_layers"],
        f"{name}.context_length": values["max_position_embeddings"],
        f"{name}.embedding_length": values["hidden_size"],
        f"{name}.feed_forward_length": values["intermediate_size"],
        f"{name}.attention.head_count": values["num_attention_heads"],
        f"{name}.attention.head_count_kv": values["num_key_value_heads"],
        f"{name}.attention.layer_norm_rms_epsilon": float(values["rms_norm_eps"]),
        f"{name}.rope.freq_base": _theta(values),
    }
    optional = {
        "attention.sliding_window": values.get("sliding_window"),
        "attn_logit_softcapping": values.get("attn_logit_softcapping"),
        "final_logit_softcapping": values.get("final_logit_softcapping"),
        "expert_count": values.get("num_experts") or values.get("num_local_experts"),
        "expert_used_count": values.get("num_experts_per_tok"),
        "expert_feed_forward_length": values.get("moe_intermediate_size"),
    }
    metadata |= {f"{name}.{k}": v for k, v in optional.items() if v is not None}
    rope = values["rope_parameters"]
    if name == "phi3":
        size = values["hidden_size"] // values["num_attention_heads"]
        metadata[f"{name}.rope.dimension_count"] = int(size * rope["partial_rotary_factor"])
        original = values["original_max_position_embeddings"]
        metadata[f"{name}.rope.scaling.original_context_length"] = original
    if values.get("head_dim"):
        metadata[f"{name}.attention.key_length"] = values["head_dim"]
    return metadata


def _theta(values: dict[str, Any]) -> float:
    rope = values["rope_parameters"]
    return float(rope.get("full_attention", rope)["rope_theta"])
