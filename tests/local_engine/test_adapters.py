"""Adapters: the same answers as from merged weights, several in one batch, come and go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file

from bench.engine_families import write_tokenizer
from local_engine.adapters import Adapters
from local_engine.engine import Engine
from local_engine.errors import CheckpointError, InvalidRequest, UnknownAdapter
from local_engine.loader import load_model
from local_engine.server import EngineServer, ServerSettings
from local_engine.types import EngineLimits
from tests.local_engine.conftest import CPU
from tests.local_engine.support import ask, build, eventually, prompt_of, run

SIZES = {"q_proj": (64, 64), "k_proj": (32, 64), "v_proj": (32, 64), "o_proj": (64, 64)}
WIDE = {"gate_proj": (96, 64), "up_proj": (96, 64), "down_proj": (64, 96)}
MODULES = {f"self_attn.{n}": s for n, s in SIZES.items()} | {f"mlp.{n}": s for n, s in WIDE.items()}
ALL = tuple(MODULES)


def write_adapter(
    path: Path, seed: int, modules: tuple[str, ...] = ALL, *, rank: int = 4, **settings: Any
) -> dict[str, torch.Tensor]:
    """Write an adapter as PEFT does; return what it adds to each weight."""
    path.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors, changes = {}, {}
    for layer in (0, 2):
        for module in modules:
            rows, columns = MODULES[module]
            name = f"model.layers.{layer}.{module}"
            down = torch.randn(rank, columns, generator=generator) * 0.2
            up = torch.randn(rows, rank, generator=generator) * 0.2
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
            scale = 6.0 / (rank**0.5 if settings.get("use_rslora") else rank)
            changes[f"{name}.weight"] = scale * up @ down
    save_file(tensors, path / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "r": rank, "lora_alpha": 6, "bias": "none", **settings}
    (path / "adapter_config.json").write_text(json.dumps(written))
    return changes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, torch.Tensor]], Path]:
    """Return the checkpoint with changes merged into its weights."""

    def merged(changes: dict[str, torch.Tensor]) -> Path:
        model = build("qwen2")
        with torch.no_grad():
            for name, change in changes.items():
                model.get_parameter(name).add_(change)
        path = tmp_path_factory.mktemp("merged")
        model.save_pretrained(path)
        write_tokenizer(path)
        return path

    return merged


Base = Callable[[dict[str, torch.Tensor]], Path]
PROMPT = prompt_of(4, 40)


async def greedy(engine: Engine, adapter: str, id: str = "a") -> list[int]:
    tokens, _ = await run(engine, ask(id, PROMPT, 24, adapter=adapter))
    return [t.id for t in tokens]


async def test_answers_equal_those_of_merged_weights_in_one_batch(
    base: Base, tmp_path: Path
) -> None:
    changes = {
        "": {},
        "one": write_adapter(tmp_path / "one", 1),
        "two": write_adapter(tmp_path / "two", 2, ("self_attn.v_proj", "mlp.down_proj"), rank=7),
        "three": write_adapter(tmp_path / "three", 3, ("self_attn.q_proj",), use_rslora=True),
    }
    wanted = {}
    for name, change in changes.items():
        async with Engine(load_model(base(change), CPU)) as engine:
            wanted[name] = await greedy(engine, "")
    model = load_model(base({}), CPU)
    adapters = Adapters(model.decoder, tmp_path)
    for name in ("one", "two", "three"):
        adapters.load(name)
    limits = EngineLimits(prefill_chunk=16, guesses=4)
    async with Engine(model, limits, adapters=adapters) as engine:
        alone = {name: await greedy(engine, name) for name in wanted}
        names = [*wanted, *wanted]
        crowd = await asyncio.gather(
            *(greedy(engine, name, f"{n}") for n, name in enumerate(names))
        )

    assert alone == wanted
    assert crowd == [wanted[name] for name in names]
    assert len({tuple(tokens) for tokens in wanted.values()}) == 4


async def test_a_running_answer_keeps_its_adapter_and_its_prefix_to_itself(
    base: Base, tmp_path: Path
) -> None:
    model = load_model(base({}), CPU)
    adapters = Adapters(model.decoder, tmp_path)
    write_adapter(tmp_path / "one", 1)
    adapters.load("one")
    async with Engine(model, adapters=adapters) as engine:
        wanted = await greedy(engine, "one")
        async with engine.submit(ask("long", PROMPT, 24, adapter="one")) as generation:
            await generation.take()
            write_adapter(tmp_path / "one", 9)
            adapters.load("one")
            other = await greedy(engine, "one")
            adapters.unload("one")
            with pytest.raises(UnknownAdapter):
                engine.submit(ask("b", PROMPT, 24, adapter="one"))
        again = await greedy(engine, "")

    assert other != wanted != again


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"peft_type": "LOHA"}, "peft_type"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"),
        ({"lora_alpha": "much"}, "lora_alpha"),
    ],
)
def test_adapters_of_another_kind_are_refused_by_name(
    base: Base, tmp_path: Path, settings: dict[str, Any], problem: str
) -> None:
    adapters = Adapters(load_model(base({}), CPU).decoder, tmp_path)
    write_adapter(tmp_path / "one", 1, **settings)

    with pytest.raises(CheckpointError, match=problem):
        adapters.load("one")
    assert adapters.names == []


def test_adapters_that_do_not_fit_are_refused(base: Base, tmp_path: Path) -> None:
    adapters = Adapters(load_model(base({}), CPU).decoder, tmp_path)
    path = tmp_path / "one"
    for tensors in (
        {"base_model.model.lm_head.lora_A.weight": torch.ones(1, 64)},
        {"model.layers.7.self_attn.q_proj.lora_A.weight": torch.ones(1, 64)},
        {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(1, 64)},
        {
            "model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 64),
            "model.layers.0.self_attn.q_proj.lora_B.weight": torch.ones(64, 3),
        },
    ):
        write_adapter(path, 1)
        save_file(tensors, path / "adapter_model.safetensors")
        with pytest.raises(CheckpointError, match=r"fit|none of a LoRA"):
            adapters.load("one")
    (path / "adapter_model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="truncated"):
        adapters.load("one")


@pytest.mark.parametrize("name", ["../one", "", "a/b", ".hidden", "x" * 80])
def test_only_plain_names_are_looked_for(base: Base, tmp_path: Path, name: str) -> None:
    adapters = Adapters(load_model(base({}), CPU).decoder, tmp_path)

    with pytest.raises(InvalidRequest):
        adapters.load(name)
    with pytest.raises(UnknownAdapter):
        adapters.load("absent")


async def test_adapters_are_asked_for_loaded_and_unloaded_over_http(
    base: Base, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "one", 1)
    settings = ServerSettings(str(base({})), "tiny", port=0, adapters=tmp_path)
    server = EngineServer(settings)
    stop = asyncio.Event()
    task = asyncio.create_task(server.run(stop))
    await eventually(lambda: server.app.ready is not None)
    body = {"prompt": list(PROMPT), "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    async with httpx.AsyncClient(base_url=server.address + "/v1", timeout=30) as client:
        plain = (await client.post("/completions", json={**body, "model": "tiny"})).json()
        one = (await client.post("/completions", json={**body, "model": "one"})).json()
        write_adapter(tmp_path / "two", 2)
        two = await client.post("/completions", json={**body, "model": "two"})
        loaded = await client.post("/load_lora_adapter", json={"lora_name": "two"})
        models = (await client.get("/models")).json()["data"]
        gone = await client.post("/unload_lora_adapter", json={"lora_name": "one"})
        absent = await client.post("/load_lora_adapter", json={"lora_name": "three"})
        itself = await client.post("/load_lora_adapter", json={"lora_name": "tiny"})
    stop.set()
    await task

    assert one["model"] == "one"
    assert one["choices"][0]["text"] != plain["choices"][0]["text"]
    assert (two.status_code, absent.status_code, itself.status_code) == (404, 404, 400)
    assert loaded.json() == {"adapters": ["one", "two"]}
    assert [(m["id"], m.get("parent")) for m in models] == [
        ("tiny", None),
        ("one", "tiny"),
        ("two", "tiny"),
    ]
    assert gone.json() == {"adapters": ["two"]}
