"""GGUF: blocks, models, tokenizers, and files that lie."""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from bench.engine_families import CORPUS, SHAPE, SPECIALS, TEMPLATE, write_tokenizer
from local_engine.checkpoint import find_checkpoint
from local_engine.errors import CheckpointError
from local_engine.formats.gguf_blocks import grid_of
from local_engine.formats.gguf_file import TYPES, GgufFile
from local_engine.formats.gguf_tokenizer import tokenizer_json
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.quant import Int4Linear, Int8Linear, Quantization
from local_engine.tokenizer import Tokenizer
from tests.local_engine.formats.gguf_writer import (
    TYPE_IDS,
    container,
    entry,
    quantize,
    text,
    write_gguf,
)
from tests.local_engine.formats.test_stored import logprobs_of

WIDE: dict[str, Any] = SHAPE | {
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "initializer_range": 0.08,
}
PHI_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
# What gguf 0.19 makes of two blocks of bytes (i * i * 7 + i * 13 + 5) mod 256 with scales
# of 1/4 and 1/2 (and 9/4 or 5/2 as second): the sum, and seven of the numbers.
GOLDEN: dict[str, tuple[float, list[float]]] = {
    "Q4_0": (3.75, [0.75, 0.75, -0.5, 1.0, 1.0, 0.5, -1.5]),
    "Q4_1": (347.75, [4.5, 3.5, 6.0, 5.5, 5.5, 9.0, 5.5]),
    "Q5_0": (37.75, [3.75, 1.75, -1.25, 0.5, 0.5, 0.5, 3.0]),
    "Q5_1": (589.75, [9.5, 2.5, 9.0, 8.75, 8.75, 13.0, 12.0]),
    "Q8_0": (-8.0, [14.75, 26.75, -9.25, 30.25, 30.25, 36.5, 61.5]),
    "Q4_K": (14784.0, [-50.0, -9.0, -9.0, 52.5, -69.0, -10.0, -117.5]),
    "Q5_K": (57240.0, [114.0, 155.0, 155.0, 216.5, 95.5, 190.0, 77.5]),
    "Q6_K": (
        -1065854.0,
        [135154.25, 86007.25, -129739.75, 574561.75, -244693.75, 422212.5, 21892.5],
    ),
}
SCALES_AT = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def options(scheme: Quantization) -> LoadOptions:
    return LoadOptions(scheme, device=torch.device("cpu"))


@pytest.mark.parametrize("name", GOLDEN)
def test_blocks_mean_what_the_formats_own_library_says(name: str) -> None:
    (block, size) = next((b, s) for n, b, s in TYPES.values() if n == name)
    one = bytearray((i * i * 7 + i * 13 + 5) % 256 for i in range(2 * size))
    for row in range(2):
        for at in SCALES_AT.get(name, (0,)):
            struct.pack_into("<e", one, row * size + at, 0.25 * (row + 1) + at)
    data = torch.frombuffer(one, dtype=torch.uint8)

    found = grid_of(data, name, (2, block), size).dequantize().flatten()

    total, some = GOLDEN[name]
    places = [0, 1, 17, 31, block - 1, block, 2 * block - 2]
    assert found.double().sum().item() == total
    assert found[places].tolist() == some


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a checkpoint whose rows are wide enough for blocks of 256."""
    makers: dict[str, Callable[[], PreTrainedModel]] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**WIDE)),
        "qwen3": lambda: Qwen3ForCausalLM(
            Qwen3Config(**{**WIDE, "num_hidden_layers": 1}, head_dim=32, tie_word_embeddings=True)
        ),
        "gemma2": lambda: Gemma2ForCausalLM(
            Gemma2Config(**WIDE, head_dim=32, query_pre_attn_scalar=32, sliding_window=9)
        ),
        "gemma3": lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(
                **{**WIDE, "num_hidden_layers": 6},
                head_dim=32,
                query_pre_attn_scalar=32,
                sliding_window=9,
            )
        ),
        "phi3": lambda: Phi3ForCausalLM(Phi3Config(**WIDE, rope_parameters=PHI_ROPE)),
        "phi3-long": lambda: Phi3ForCausalLM(
            Phi3Config(
                **WIDE,
                rope_parameters=PHI_ROPE
                | {
                    "rope_type": "longrope",
                    "short_factor": [1.0 + n / 10 for n in range(24)],
                    "long_factor": [2.0 + n / 5 for n in range(24)],
                },
                original_max_position_embeddings=256,
            )
        ),
        "mixtral": lambda: MixtralForCausalLM(
            MixtralConfig(**{**WIDE, "num_hidden_layers": 1}, num_local_experts=3)
        ),
        "qwen3-moe": lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(
                **{**WIDE, "num_hidden_layers": 1},
                num_experts=3,
                num_experts_per_tok=2,
                moe_intermediate_size=256,
                norm_topk_prob=True,
                head_dim=32,
            )
        ),
    }

    @functools.cache
    def directory(name: str) -> Path:
        torch.manual_seed(3)
        path = tmp_path_factory.mktemp(name)
        makers[name]().save_pretrained(path)
        write_tokenizer(path)
        return path

    return directory


def beside(directory: Path, tmp_path: Path) -> Path:
    """Return where a file goes that finds its tokenizer beside it."""
    shutil.copy(directory / "tokenizer.json", tmp_path / "tokenizer.json")
    return tmp_path / "model.gguf"


@pytest.mark.parametrize(
    ("kind", "model"),
    [(k, "llama") for k in TYPE_IDS]
    + [("Q8_0", "qwen3"), ("Q4_0", "qwen3"), ("F16", "gemma3"), ("F16", "mixtral")]
    + [("Q8_0", m) for m in ("gemma2", "gemma3", "phi3", "phi3-long", "mixtral", "qwen3-moe")],
)
def test_a_file_stands_for_its_expanded_checkpoint(
    kind: str, model: str, wide: Callable[[str], Path], tmp_path: Path
) -> None:
    path = beside(wide(model), tmp_path)
    stands_for = write_gguf(wide(model), kind, path)
    expanded = Path(shutil.copytree(wide(model), tmp_path / "expanded"))
    save_file(stands_for, expanded / "model.safetensors")
    wanted = logprobs_of(load_model(expanded, options("none")))

    found = logprobs_of(load_model(path, options("none")))
    kept = load_model(path, options("as-stored"))

    assert torch.allclose(found, wanted, atol=1e-4)
    divergence = (wanted.exp() * (wanted - logprobs_of(kept))).sum(-1)
    assert -1e-6 < divergence.mean().item() < 0.02
    if kind.startswith("Q") and model not in ("mixtral", "qwen3-moe"):
        expected = Int4Linear if kind.startswith("Q4") else Int8Linear
        assert all(isinstance(layer.qkv, expected) for layer in kept.decoder.layers)


def test_frequency_factors_of_a_file_are_applied(
    wide: Callable[[str], Path], tmp_path: Path
) -> None:
    path = beside(wide("llama"), tmp_path)
    write_gguf(wide("llama"), "F32", path)
    plain = GgufFile(path)
    factors = torch.linspace(1, 8, 32)
    infos = [(n, t.shape, TYPE_IDS[t.type], 0) for n, t in plain.tensors.items()]
    data, placed = b"", []
    for name, shape, kind, _ in infos:
        placed.append((name, shape, kind, len(data)))
        data += plain.data(name).numpy().tobytes()
    placed.append(("rope_freqs.weight", (32,), 0, len(data)))
    data += factors.numpy().tobytes()
    path.write_bytes(container(plain.metadata, placed, data))

    config = load_model(path, options("none")).config

    assert config.rope.divisors == tuple(factors.tolist())


BPE_META = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}
TEXTS = ["the quick brown fox, 1234 & 12!", "  zwölf\n\n\tgroße Füchse 🦊 ", "don't I'LL x", ""]


def byte_level(pattern: str | None) -> tuple[HfTokenizer, dict[str, Any]]:
    """Train a tokenizer, and say in a file's metadata what it is."""
    core = HfTokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    core.pre_tokenizer = level
    if pattern is not None:
        split = pre_tokenizers.Split(_regex(pattern), "isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([split, level])
        core.normalizer = normalizers.NFC()
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS, trainer)
    model = json.loads(core.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return core, BPE_META | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(m) for m in model["merges"]],
        "tokenizer.ggml.token_type": [3 if t in SPECIALS else 1 for t in tokens],
        "tokenizer.chat_template": TEMPLATE,
    }


def _regex(pattern: str) -> Any:
    from tokenizers import Regex

    return Regex(pattern)


@pytest.mark.parametrize("pre", ["gpt-2", "qwen2"])
def test_a_byte_level_tokenizer_comes_out_of_the_metadata(pre: str) -> None:
    from local_engine.formats.gguf_tokenizer import _SPLITS

    core, metadata = byte_level(_SPLITS[pre])
    found = Tokenizer.parse(
        Path("x"), tokenizer_json(Path("x"), metadata | {"tokenizer.ggml.pre": pre})
    )

    for words in [*TEXTS, "<|user|>hi<|end|>"]:
        assert list(found.encode(words, add_special=False)) == core.encode(words).ids


def test_a_sentencepiece_tokenizer_comes_out_of_the_metadata() -> None:
    core = HfTokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=special, show_progress=False)
    core.train_from_iterator(["the quick brown fox jumps over the lazy dog " * 3] * 4, trainer)
    model = json.loads(core.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    rank = {"".join(m): -float(i) for i, m in enumerate(model["merges"])}
    bytes_end = len(special)
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [rank.get(t, -1e4) for t in tokens],
        "tokenizer.ggml.token_type": [
            2 if i == 0 else 3 if i < 3 else 6 if i < bytes_end else 1 for i in range(len(tokens))
        ],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    # Byte tokens are no special ones, but for the trainer they must be.
    values = json.loads(core.to_str())
    values["added_tokens"] = [
        t for t in values["added_tokens"] if not t["content"].startswith("<0x")
    ]
    core = HfTokenizer.from_str(json.dumps(values))
    found = Tokenizer.parse(Path("x"), tokenizer_json(Path("x"), metadata))

    for words in ["the fox", "quick  brown", "zwölf 🦊", " over"]:
        assert list(found.encode(words, add_special=False)) == core.encode(words).ids
        assert found.encode(words, add_special=True)[0] == 1
    assert (
        b"".join(found.bytes_of(i) for i in found.encode("ö x", add_special=False))
        == " ö x".encode()
    )


def test_a_file_with_everything_in_it_needs_nothing_beside(
    wide: Callable[[str], Path], tmp_path: Path
) -> None:
    core, metadata = byte_level(None)
    path = tmp_path / "all.gguf"
    write_gguf(wide("llama"), "Q4_0", path, **metadata)

    model = load_model(find_checkpoint(str(path)), options("as-stored"))

    assert isinstance(model, LoadedModel)
    assert model.end_ids == {2}
    assert model.template is not None
    assert list(model.tokenizer.encode(TEXTS[0], add_special=False)) == core.encode(TEXTS[0]).ids


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tokenizer.ggml.model": "t5"}, "put the model's tokenizer.json beside"),
        ({"tokenizer.ggml.pre": "falcon"}, "tokenizer.ggml.pre: expected one of"),
        ({"tokenizer.ggml.merges": ["a b c d"]}, "is not a usable tokenizer"),
        ({"tokenizer.ggml.eos_token_id": "2"}, "expected token ids"),
        ({"tokenizer.chat_template": "{% broken"}, "chat_template"),
        ({"general.architecture": "mamba"}, "expected one of llama, qwen2, qwen3"),
        ({"llama.expert_count": 8}, "block_sparse_moe.gate.weight is missing|no such tensor"),
        ({"llama.expert_shared_count": 1}, "expert_shared_count: expected nothing that changes"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count"),
        ({"llama.block_count": 3}, "model.layers.2.*missing"),
        ({"llama.block_count": 1}, "no such tensor"),
        ({"llama.rope.scaling.type": "longrope"}, "short_factor"),
    ],
)
def test_unusable_metadata_is_named(
    changes: dict[str, Any], match: str, wide: Callable[[str], Path], tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    _, metadata = byte_level(None)
    write_gguf(wide("llama"), "F16", path, **(metadata | changes))

    with pytest.raises(CheckpointError, match=match):
        load_model(path, options("none"))


DATA = b"\0" * 64


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "cannot be read"),
        (b"GGUX" + b"\0" * 60, "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 2 or 3, found 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors, more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "metadata entries, more than"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 50),
            "bytes in one string",
        ),
        (
            b"GGUF"
            + struct.pack("<IQQ", 3, 0, 1)
            + text("a")[:-1]
            + b"\xff"
            + struct.pack("<IB", 0, 1),
            "UTF-8",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 99),
            "unknown kind",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 5, 1 << 40),
            "values in one array",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1),
            "array of kind 9",
        ),
        (container({}, [("a", (8,), 0, 0)], DATA)[:-40], "beyond the end"),
        (container({}, [("a", (8,), 0, 0), ("b", (8,), 0, 0)], DATA), "over another tensor"),
        (container({}, [("a", (8,), 0, 0), ("a", (8,), 0, 32)], DATA), "cannot be"),
        (container({}, [("a", (8,), 0, 8)], DATA), "cannot be"),
        (container({}, [("a", (1 << 32, 1 << 32), 0, 0)], DATA), "beyond the end"),
        (container({}, [("a", (0, 8), 0, 0)], DATA), "cannot be"),
        (container({}, [("a", (40,), 2, 0)], DATA), "cannot be"),
        (container({}, [("a", (8,), 77, 0)], DATA), "found type 77"),
        (container({}, [("a", (8,), 0, 1 << 63)], DATA), "beyond the end"),
        (container({"general.alignment": 0}, [("a", (8,), 0, 0)], DATA), "alignment"),
        (container({"general.alignment": "x"}, [], DATA), "alignment"),
    ],
)
def test_lying_files_are_refused_before_anything_is_read(
    content: bytes, match: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=match):
        GgufFile(path)


@given(data=st.binary(max_size=300), cut=st.integers(0, 400), at=st.integers(0, 400))
def test_no_bytes_make_the_reader_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int, at: int
) -> None:
    sound = container({"a": "b", "c": [1, 2], "d": 1.5}, [("t", (2, 4), 0, 0)], DATA)
    path = tmp_path_factory.mktemp("fuzz") / "x.gguf"
    path.write_bytes(sound[:at] + data + sound[at + cut :])
    with contextlib.suppress(CheckpointError):
        GgufFile(path)


def test_values_that_are_not_finite_are_refused(
    wide: Callable[[str], Path], tmp_path: Path
) -> None:
    path = beside(wide("llama"), tmp_path)
    write_gguf(wide("llama"), "Q8_0", path)
    file = GgufFile(path)
    start = file.tensors["blk.1.ffn_up.weight"].start
    data = bytearray(path.read_bytes())
    data[start : start + 2] = struct.pack("<e", float("inf"))
    path.write_bytes(data)

    with pytest.raises(CheckpointError, match=r"ffn_up\.weight: holds NaN"):
        load_model(path, options("as-stored"))


def test_entries_of_every_kind_are_read(tmp_path: Path) -> None:
    metadata = {"a": True, "b": 7, "c": 0.5, "d": "é", "e": ["x", ""], "f": [1, -2], "g": [0.25]}
    path = tmp_path / "x.gguf"
    path.write_bytes(container(metadata, [], b""))

    assert GgufFile(path).metadata == metadata
    assert entry("a", 1)
    assert quantize(torch.ones(1, 32), "F16")[1].sum() == 32
