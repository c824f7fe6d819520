"""Every scheme against the reference that expands its weights, and against what was asked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from local_engine.quant import (
    Fp8Linear,
    Grid,
    Int4Linear,
    Int8Linear,
    Linear,
    Nf4Linear,
    PlainLinear,
    Quantization,
    bytes_per_weight,
    grid_linear,
    has_int4_kernel,
    make_linear,
    quantize,
    restore,
    unpacked_grid,
)
from local_engine.quant.codebook import nf4_levels, nf4_pack
from local_engine.quant.grid import can_stack, fit_group, int4_grid, stack

KINDS: dict[Quantization, type] = {
    "int8": Int8Linear,
    "int4": Int4Linear,
    "int4-g32": Int4Linear,
    "int4-g64": Int4Linear,
    "int4-g128": Int4Linear,
    "nf4": Nf4Linear,
    "fp8": Fp8Linear,
}
# The part of a normal weight's size that each scheme may lose.
LOSSES: dict[Quantization, float] = {
    "int8": 0.012,
    "int4": 0.11,
    "int4-g32": 0.10,
    "int4-g64": 0.11,
    "int4-g128": 0.12,
    "nf4": 0.10,
    "fp8": 0.03,
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(linear: Linear) -> torch.Tensor:
    """Return the weight that a product stands for, by the definition of its scheme."""
    if isinstance(linear, Int8Linear):
        return linear.weight.float() * linear.scale.float()[:, None]
    if isinstance(linear, Int4Linear):
        return linear.expanded().t()[: linear.outputs].float()
    assert isinstance(linear, (Nf4Linear, Fp8Linear))
    return linear.dequantize(torch.float32)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("rows", [1, 5, 49, 100, 140])
@pytest.mark.parametrize("scheme", KINDS)
def test_products_equal_the_expanded_weight_for_few_rows_and_for_many(
    scheme: Quantization, rows: int
) -> None:
    weight, bias, x = random(96, 256), random(96, seed=1), random(rows, 256, seed=2)
    linear = make_linear(weight, bias, scheme)

    found = linear(x)

    assert isinstance(linear, KINDS[scheme])
    assert found.dtype == x.dtype
    assert found.shape == (rows, 96)
    assert off(found, x @ reference(linear).T + bias) < 0.01


@pytest.mark.parametrize("scheme", KINDS)
def test_what_a_scheme_loses_is_bounded(scheme: Quantization) -> None:
    weight = random(64, 512)
    linear = make_linear(weight, None, scheme)

    assert off(reference(linear), weight) < LOSSES[scheme]
    assert linear.nbytes <= 1.1 * bytes_per_weight(scheme, torch.float32) * weight.numel()


def test_smaller_groups_lose_less() -> None:
    weight = random(64, 512)
    losses = [off(int4_grid(weight, g).dequantize(), weight) for g in (32, 64, 128)]

    assert losses == sorted(losses)


@pytest.mark.parametrize("scheme", KINDS)
def test_a_kept_weight_comes_back_as_it_was(scheme: Quantization) -> None:
    weight, x = random(80, 256), random(3, 256, seed=4)
    packed = quantize(weight, scheme)

    assert torch.equal(restore(packed, None)(x), make_linear(weight, None, scheme)(x))


def test_inputs_that_no_group_divides_get_eight_bits() -> None:
    assert isinstance(make_linear(random(16, 40), None, "int4"), Int8Linear)
    assert isinstance(make_linear(random(16, 40), None, "nf4"), Int8Linear)
    assert isinstance(make_linear(random(16, 96), None, "int4-g128"), Int4Linear)
    assert fit_group(96, 128) == 32
    assert fit_group(40, 128) is None


@pytest.mark.parametrize("scheme", KINDS)
@pytest.mark.parametrize("fill", [0.0, 3.5, -2.0])
def test_constant_weights_are_kept_and_nothing_becomes_nan(
    scheme: Quantization, fill: float
) -> None:
    linear = make_linear(torch.full((64, 128), fill), None, scheme)

    found = linear(torch.ones(2, 128))

    assert torch.allclose(found, torch.full((2, 64), fill * 128), rtol=0.02, atol=1e-3)


def test_without_loops_or_kernel_the_products_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = random(80, 256), random(4, 256, seed=5)
    native = make_linear(weight, None, "int4")(x)
    monkeypatch.setattr("local_engine.quant.int4.native_for", lambda device: None)
    with_kernel = make_linear(weight, None, "int4")
    monkeypatch.setattr("local_engine.quant.int4.has_int4_kernel", lambda device: False)
    plain = make_linear(weight, None, "int4")

    assert isinstance(plain, Int4Linear)
    assert not plain._has_kernel
    assert off(with_kernel(x), native) < 0.01
    assert off(plain(x), native) < 0.01


def test_the_kernel_is_found_where_the_processor_has_it() -> None:
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        pytest.skip("torch's 4-bit kernel packs in blocks of 64 on AVX-512 alone")
    assert has_int4_kernel("cpu")
    assert not has_int4_kernel("meta")


def test_nf4_levels_are_the_published_ones() -> None:
    # QLoRA's table, arXiv 2305.14314, appendix E, to four places.
    published = [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0]
    published += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0]

    assert nf4_levels() == pytest.approx(published, abs=1e-4)


def test_nf4_takes_the_nearest_level() -> None:
    weight = random(8, 64)
    packed, peaks = nf4_pack(weight)
    levels = torch.tensor(nf4_levels())
    nearest = (weight / peaks)[..., None].sub(levels).abs().argmin(-1)

    found = torch.stack((packed & 15, packed >> 4), -1).flatten(1)
    assert torch.equal(found.long(), nearest)


def grid_of(bits: int, columns: int, group: int, *, is_ordered: bool = False) -> Grid:
    generator = torch.Generator().manual_seed(bits * columns + group)
    q = torch.randint(0, 1 << bits, (64, columns), dtype=torch.uint8, generator=generator)
    scale = torch.rand(64, columns // group, generator=generator) * 0.01 + 0.01
    offset = torch.randn(64, columns // group, generator=generator) * 0.05
    order = torch.randperm(columns, generator=generator) if is_ordered else None
    return Grid(q, scale, offset, bits, order)


@pytest.mark.parametrize("is_ordered", [False, True])
@pytest.mark.parametrize("group", [16, 32, 128, 512])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_of_others_give_the_product_of_their_reference(
    bits: int, group: int, is_ordered: bool
) -> None:
    grid = grid_of(bits, 512, group, is_ordered=is_ordered)
    x = random(3, 512, seed=6)

    linear = grid_linear(grid, None)

    assert off(linear(x), x @ grid.dequantize().T) < 0.015
    assert isinstance(linear, Int4Linear) == (bits == 4 and group >= 32)


def test_plain_int8_of_others_is_kept_as_it_is() -> None:
    values = torch.randint(-128, 128, (64, 96)).to(torch.int8)
    scale = torch.rand(64, 1).to(torch.bfloat16).float()
    q = (values.to(torch.int16) + 128).to(torch.uint8)

    linear = grid_linear(Grid(q, scale, -128 * scale, 8), None)

    assert isinstance(linear, Int8Linear)
    assert torch.equal(linear.weight, values)


def test_only_grids_alike_are_stacked() -> None:
    first = grid_of(4, 256, 32)

    assert can_stack([first, first])
    assert torch.equal(stack([first, first]).dequantize()[64:], first.dequantize())
    assert not can_stack([first, grid_of(8, 256, 32)])
    assert not can_stack([first, grid_of(4, 256, 64)])
    assert not can_stack([first, grid_of(4, 256, 32, is_ordered=True)])


@given(
    st.integers(1, 70),
    st.sampled_from([64, 96, 128, 320]),
    st.sampled_from([32, 64, 128]),
    st.floats(1e-6, 1e4),
)
def test_every_4_bit_weight_is_within_its_groups_range(
    rows: int, columns: int, group: int, size: float
) -> None:
    weight = random(rows, columns, seed=rows) * size
    if columns % group:
        return
    grid = int4_grid(weight, group)
    again = unpacked_grid(quantize(weight, f"int4-g{group}"))  # type: ignore[arg-type]

    spread = weight.view(rows, -1, group).amax(-1) - weight.view(rows, -1, group).amin(-1)
    error = (grid.dequantize() - weight).abs().view(rows, -1, group).amax(-1)
    assert bool((error <= 0.12 * spread + 1e-6).all())
    assert torch.equal(again.dequantize(), grid.dequantize())


def test_unquantized_stays_plain_whatever_it_is_called() -> None:
    assert isinstance(make_linear(random(4, 4), None, "as-stored"), PlainLinear)
    assert isinstance(make_linear(random(4, 4), None, "none"), PlainLinear)
