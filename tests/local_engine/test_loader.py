"""Checkpoints: sound ones load, broken and hostile ones are refused by file and reason."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bench.engine_families import TEMPLATE
from local_engine.checkpoint import find_checkpoint
from local_engine.config import read_config
from local_engine.errors import CheckpointError
from local_engine.loader import LoadedModel, load_model
from local_engine.types import Sampling
from local_engine.weights import open_weights
from tests.local_engine.conftest import CPU

Checkpoint = Callable[[str], Path]


@pytest.fixture
def copy(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """Return a checkpoint of one's own, to break."""
    return Path(shutil.copytree(checkpoint("llama"), tmp_path / "copy"))


def change_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def write_header(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures: expected one of Llama"),
        ({"architectures": None}, "architectures"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"hidden_size": 10**9}, "hidden_size: expected a whole number"),
        ({"hidden_size": -64}, "hidden_size"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": 64.0}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers"),
        ({"vocab_size": 1 << 40}, "vocab_size"),
        ({"num_key_value_heads": 3}, "divisor of 4 heads"),
        ({"head_dim": None, "hidden_size": 66}, "multiple of 4 heads"),
        ({"head_dim": 15}, "even number"),
        ({"hidden_act": "relu"}, "hidden_act: expected one of silu"),
        ({"hidden_act": 3}, "hidden_act: expected text"),
        ({"sliding_window": 100}, "sliding_window: expected null"),
        ({"attn_logit_softcapping": 50.0}, "no soft cap in this architecture"),
        ({"final_logit_softcapping": 50.0}, "no soft cap in this architecture"),
        ({"residual_multiplier": 0.2}, "residual_multiplier: expected nothing that changes"),
        ({"qk_layernorm": True}, "qk_layernorm"),
        ({"num_local_experts": 8}, "one feed-forward block a layer"),
        ({"partial_rotary_factor": 0.05}, "an even part of the head"),
        ({"rms_norm_eps": 5}, "rms_norm_eps"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta"),
        ({"rope_parameters": {"rope_type": "proportional"}}, "one of default, linear, dynamic"),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [1]}}, "no such rotary"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 0.5}}, "factor"),
        ({"rope_parameters": {"rope_type": "yarn", "beta_fast": 1}}, "more than beta_slow"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "short_factor: expected 8 numbers"),
        ({"rope_parameters": {"type": "longrope", "short_factor": [0] * 8}}, "short_factor"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ({"rope_parameters": [1]}, "rope_parameters: expected an object"),
        ({"quantization_config": {"quant_method": "exl2"}}, "expected gptq, awq or compressed"),
        ({"quantization_config": {"quant_method": "gptq"}}, "bits: expected a whole number"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "bits: expected 4 or 8"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: expected true or false"),
        ({"max_position_embeddings": 0}, "max_position_embeddings"),
        ({"intermediate_size": 100}, "expected shape"),
        ({"num_hidden_layers": 4}, "model.layers.3.*missing"),
        ({"attention_bias": True}, "missing"),
        ({"eos_token_id": "x"}, "eos_token_id"),
    ],
)
def test_unusable_configurations_are_named(copy: Path, changes: dict[str, Any], match: str) -> None:
    (copy / "generation_config.json").unlink(missing_ok=True)
    change_json(copy / "config.json", **changes)

    with pytest.raises(CheckpointError, match=match):
        load_model(copy, CPU)


def test_llama3_scaling_needs_an_order_of_its_bounds(copy: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 4.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    change_json(copy / "config.json", rope_parameters=rope)

    with pytest.raises(CheckpointError, match="more than low_freq_factor"):
        read_config(copy)


def test_older_spelling_of_rotary_settings_is_read(copy: Path) -> None:
    values = json.loads((copy / "config.json").read_text())
    del values["rope_parameters"]
    values |= {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}}
    (copy / "config.json").write_text(json.dumps(values))
    config = read_config(copy)

    assert (config.rope.theta, config.rope.kind, config.rope.factor) == (5e5, "linear", 4.0)


def test_a_stored_bias_that_would_not_be_applied_is_refused(copy: Path) -> None:
    name = "model.layers.1.self_attn.q_proj.bias"
    change_weights(copy, lambda t: t.update({name: torch.ones(64)}))

    with pytest.raises(CheckpointError, match=r"q_proj\.bias: this architecture has no such"):
        load_model(copy, CPU)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(63)}),
            r"expected shape \(64,\), found \(63,\)",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.full((64,), float("nan"))}),
            "NaN or infinite",
        ),
        (
            lambda t: t["lm_head.weight"].__setitem__((3, 3), float("inf")),
            "NaN or infinite",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int32)}),
            "found I32",
        ),
    ],
)
def test_broken_tensors_are_named(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], None], match: str
) -> None:
    change_weights(copy, change)

    with pytest.raises(CheckpointError, match=match):
        load_model(copy, CPU)


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5000, -1])
def test_truncated_weights_are_refused_whatever_is_left(copy: Path, kept: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(copy, CPU)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[" * 100_000,
        [1, 2],
        {"a": 5},
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 16]}},
        {"a": {"dtype": "F32", "shape": "ab", "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [200], "data_offsets": [0, 800]}},
    ],
)
def test_lying_headers_are_refused_before_anything_is_read(tmp_path: Path, header: Any) -> None:
    write_header(tmp_path / "model.safetensors", header, b"\0" * 8)

    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_weights(tmp_path)


@given(data=st.binary(max_size=200))
def test_no_bytes_make_the_header_reader_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz")
    (path / "model.safetensors").write_bytes(len(data).to_bytes(8, "little") + data)
    with contextlib.suppress(CheckpointError):
        open_weights(path)


def test_weights_larger_than_the_machine_are_refused_unread(copy: Path) -> None:
    path = copy / "model.safetensors"
    size = 1 << 42
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    header["extra"] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}
    write_header(path, header)
    with path.open("r+b") as file:
        file.truncate(size + 100_000)  # sparse: it takes no space

    with pytest.raises(CheckpointError, match="choose a smaller model"):
        load_model(copy, CPU)


def test_shards_are_read_through_their_index(
    copy: Path, loaded: Callable[[str], LoadedModel]
) -> None:
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    files = {n: f"part-{i % 2}.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        save_file({n: tensors[n] for n in names if files[n] == file}, copy / file)
    (copy / "model.safetensors").unlink()
    change_json(copy / "model.safetensors.index.json", weight_map=files)
    model = load_model(copy, CPU)

    assert torch.equal(model.decoder.embedding, loaded("llama").decoder.embedding)


@pytest.mark.parametrize(
    "weight_map",
    [
        None,
        ["model.safetensors"],
        {"a": 3},
        {"a": "../model.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "weights.bin"},
        {"a": "absent.safetensors"},
    ],
)
def test_index_that_points_elsewhere_is_refused(copy: Path, weight_map: Any) -> None:
    change_json(copy / "model.safetensors.index.json", weight_map=weight_map)

    with pytest.raises(CheckpointError, match="safetensors"):
        load_model(copy, CPU)


def test_pickled_weights_are_never_opened(copy: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))

    with pytest.raises(CheckpointError, match="never loaded"):
        load_model(copy, CPU)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_files_are_named(copy: Path, name: str) -> None:
    (copy / name).unlink()

    with pytest.raises(CheckpointError, match=name):
        load_model(copy, CPU)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, "\0"])
def test_broken_json_is_named(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text)

    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object"):
        load_model(copy, CPU)


def test_tokenizer_of_a_larger_model_is_refused(copy: Path) -> None:
    path = copy / "tokenizer.json"
    values = json.loads(path.read_text())
    added = {"content": "<x>", "special": True, "id": 900}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    values["model"]["vocab"]["<x>"] = 900
    values["added_tokens"].append(added | flags)
    path.write_text(json.dumps(values))

    with pytest.raises(CheckpointError, match="not of one kind"):
        load_model(copy, CPU)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_in_place_of_a_file_is_not_waited_on(copy: Path, name: str) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)

    with pytest.raises(CheckpointError, match="expected a file, found something else"):
        load_model(copy, CPU)


def test_token_ids_that_would_fill_the_memory_are_refused(copy: Path) -> None:
    path = copy / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"]["far"] = 4_000_000_000
    path.write_text(json.dumps(values))

    with pytest.raises(CheckpointError, match="token ids below 4194304, found 4000000000"):
        load_model(copy, CPU)


def test_end_tokens_come_from_the_most_specific_file(copy: Path) -> None:
    (copy / "generation_config.json").unlink()
    assert load_model(copy, CPU).end_ids == {2}
    change_json(copy / "generation_config.json", eos_token_id=[2, 5])
    assert load_model(copy, CPU).end_ids == {2, 5}
    (copy / "generation_config.json").unlink()
    change_json(copy / "config.json", eos_token_id=None)
    assert load_model(copy, CPU).end_ids == {2}


def test_sampling_advice_of_the_author_is_the_default(copy: Path) -> None:
    path = copy / "generation_config.json"
    path.unlink()
    assert load_model(copy, CPU).sampling == Sampling()
    change_json(path, temperature=0.6, top_k=20, top_p=0.95, min_p=7, max_new_tokens=99)
    model = load_model(copy, CPU)
    assert model.sampling == Sampling(temperature=0.6, top_k=20, top_p=0.95)
    assert model.max_tokens == 99
    change_json(path, do_sample=False, max_new_tokens=-1)
    model = load_model(copy, CPU)
    assert model.sampling.is_greedy
    assert model.max_tokens is None


def test_template_is_found_in_each_of_its_places(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": TEMPLATE}]
    for value in (TEMPLATE, named):
        change_json(path, chat_template=value)
        assert load_model(copy, CPU).template is not None
    change_json(path, chat_template=None)
    assert load_model(copy, CPU).template is None
    change_json(path, chat_template="{% broken")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: chat_template"):
        load_model(copy, CPU)
    change_json(path, chat_template=5)
    with pytest.raises(CheckpointError, match="expected text"):
        load_model(copy, CPU)
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    assert load_model(copy, CPU).template is not None


def test_names_of_checkpoints_resolve_or_say_what_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert find_checkpoint(str(tmp_path)) == tmp_path
    with pytest.raises(CheckpointError, match=r"expected a .* a \.gguf file"):
        find_checkpoint("absent.Q4_0.gguf")
    with pytest.raises(CheckpointError, match="expected a Hugging Face checkpoint directory"):
        find_checkpoint("no-such-directory")
    with pytest.raises(CheckpointError, match="shipped checkpoints"):
        find_checkpoint("demo/../../tests")
    with pytest.raises(CheckpointError, match="download it elsewhere"):
        find_checkpoint("nobody/nothing-of-this-name")


@pytest.mark.parametrize("name", ["demo/tiny", "demo/small"])
def test_shipped_checkpoints_load(name: str) -> None:
    model = load_model(find_checkpoint(name), CPU)

    assert model.template is not None
    assert model.end_ids
    assert model.sampling.is_greedy
