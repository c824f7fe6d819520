"""Triton's products against expanded weights, run by Triton's interpreter."""

# ruff: noqa: E402 - kernels are imported only where they can be run

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.local_engine.interpreter import require_interpreter

require_interpreter()

from local_engine.quant import Int4Linear, Int8Head, Int8Linear, codebook, int4, int8, paths
from local_engine.quant import triton_products as products
from local_engine.quant.grid import Grid, int4_grid
from local_engine.quant.int8 import int8_pack

CPU = torch.device("cpu")
ROWS = (1, 2, 16, 17, 40)


def random(*sizes: int) -> Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(sum(sizes)))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 256), (70, 1100), (33, 48)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_int8_products_are_those_of_the_expanded_weight(
    rows: int, outputs: int, inputs: int, has_bias: bool
) -> None:
    q, scale = int8_pack(random(outputs, inputs))
    x, bias = random(rows, inputs), random(outputs) if has_bias else None
    wanted = x @ (q.float() * scale.float()[:, None]).T

    found = products.int8_product(x, q, scale, bias)

    assert torch.allclose(found, wanted if bias is None else wanted + bias, atol=1e-4)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("outputs", "inputs", "group"), [(128, 256, 32), (70, 1024, 64), (200, 512, 256)]
)
def test_int4_products_are_those_of_the_expanded_weight(
    rows: int, outputs: int, inputs: int, group: int
) -> None:
    linear, grid = plain_int4(outputs, inputs, group)
    x, bias = random(rows, inputs), random(outputs)
    wanted = x @ grid.dequantize().T + bias

    found = products.int4_product(x, linear.packed, linear.pair, outputs, bias)

    assert torch.allclose(found, wanted, atol=2e-2)


@pytest.mark.parametrize("rows", [1, 7, 80])
def test_fp8_weights_are_read_as_they_are(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(codebook, "takes_triton", lambda device: True)
    values, scale = codebook.fp8_pack(random(70, 300))
    x, bias = random(rows, 300), random(70)
    linear = codebook.Fp8Linear(values, scale, bias)

    assert linear._is_triton
    assert torch.allclose(linear(x), x @ linear.dequantize(torch.float32).T + bias, atol=1e-3)


def plain_int4(
    outputs: int, inputs: int, group: int, order: Tensor | None = None
) -> tuple[Int4Linear, Grid]:
    """Pack as on a device without a processor's kernels."""
    made = int4_grid(random(outputs, inputs), group)
    grid = Grid(made.q, made.scale, made.offset, 4, order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int4, "native_for", lambda device: None)
        patch.setattr(int4, "has_int4_kernel", lambda device: False)
        patch.setattr(int4, "takes_triton", lambda device: True)
        return Int4Linear(grid), grid


def test_stretches_of_the_inputs_meet_in_one_sum() -> None:
    x, q = random(3, 4096), torch.ones(32, 4096, dtype=torch.int8)
    cut = products.Cut(16, 32, 64)

    assert products._splits(3, 32, 4096, cut, CPU) > 4
    found = products.int8_product(x, q, torch.ones(32), cut=cut)
    assert torch.allclose(found, x.sum(1)[:, None].expand(3, 32), atol=1e-3)


@pytest.mark.parametrize("rows", [1, 5, 80])
def test_layers_take_kernels_up_to_a_number_of_rows(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(int8, "native_for", lambda device: None)
    monkeypatch.setattr(int8, "takes_triton", lambda device: True)
    monkeypatch.setattr(int8, "has_integer_product", lambda device: False)
    weight, x = random(90, 256), random(rows, 256)
    q, scale = int8_pack(weight)
    linear, head = Int8Linear(q, scale, random(90)), Int8Head(q, scale)
    wanted = x @ (q.float() * scale.float()[:, None]).T
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    ordered, grid = plain_int4(90, 256, 64, order)

    near = 1e-4 if rows <= paths.MOST_ROWS else 0.3
    assert torch.allclose(linear(x), wanted + random(90), atol=near)
    assert torch.allclose(head(x), wanted, atol=near)
    assert head(x.to(torch.float32)).dtype == torch.float32
    assert torch.allclose(ordered(x), x @ grid.dequantize().T, atol=max(near, 3e-2))


def test_kernels_are_tried_on_a_device_before_they_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(paths, "has_products", paths.has_products.__wrapped__)
    assert paths.has_products(CPU)
    assert not paths.takes_triton(CPU)
    right = products.int4_product

    def broken(*inputs: object) -> Tensor:
        raise RuntimeError("no such instruction")

    def wrong(*inputs: object) -> Tensor:
        return right(*inputs) * 1.1  # type: ignore[arg-type]

    for bad in (broken, wrong, lambda *_: torch.tensor(torch.nan)):
        monkeypatch.setattr(products, "int4_product", bad)
        assert not paths.has_products(CPU)
    assert "no such instruction" in caplog.text
    assert "off by 0.1" in caplog.text
