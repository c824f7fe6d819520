"""Native products beside the weights they stand for."""

from __future__ import annotations

import ctypes

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local_engine.native import Native, find_native, settled
from local_engine.native.library import Product
from local_engine.native.products import Bf16Product, Int4Product, Int8Product
from local_engine.native.trial import fault_of

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def native() -> Native:
    found = find_native()
    if found is None:
        pytest.skip("the native loops could not be built here")
    return found


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 300), st.integers(1, 40), st.integers(0, 99))
def test_int8_products_of_any_shape_are_exact_in_the_weights(
    native: Native, rows: int, columns: int, outputs: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(-128, 128, (outputs, columns), dtype=torch.int8, generator=generator)
    scale, x = random(outputs, seed=seed), random(rows, columns, seed=seed + 1)
    wanted = x.double() @ (weight.double() * scale[:, None]).T

    found = Int8Product(native, weight, scale)(x, torch.float32)

    bound = 1e-5 * x.abs().amax() * weight.float().norm(dim=1).max() * scale.abs().max() + 1e-6
    assert (found - wanted).abs().max() <= bound * 5


@settings(max_examples=40)
@given(
    st.integers(1, 9),
    st.sampled_from([32, 64, 128, 256]),
    st.integers(1, 7),
    st.integers(1, 40),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_int4_products_of_any_shape_are_those_of_the_groups(
    native: Native, rows: int, group: int, groups: int, outputs: int, dtype: torch.dtype
) -> None:
    columns = group * groups
    generator = torch.Generator().manual_seed(columns)
    q = torch.randint(0, 16, (outputs, columns), generator=generator).to(torch.uint8)
    scale, middle = (random(outputs, groups, seed=n).bfloat16() for n in range(2))
    x, bias = random(rows, columns, seed=2).to(dtype), random(outputs, seed=3)
    spread = [t.double().repeat_interleave(group, 1) for t in (scale, middle)]
    weight = (q.double() - 8) * spread[0] + spread[1]

    product = Int4Product(native, q, scale, middle, bias)
    found = product(x, dtype)

    wanted = x.double() @ weight.T + bias
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 2**-7
    assert (found.double() - wanted).abs().max() <= tolerance * wanted.abs().max() + 1e-4
    assert torch.allclose(product.expanded().double(), weight, rtol=2**-7, atol=2**-6)


@pytest.mark.parametrize("columns", [32, 96, 256])
@pytest.mark.parametrize("rows", [1, 3, 4, 8, 9])
def test_bf16_products_are_right_to_their_sums(native: Native, rows: int, columns: int) -> None:
    weight, x = random(37, columns).bfloat16(), random(rows, columns, seed=1).bfloat16()
    bias = random(37, seed=2)

    found = Bf16Product(native, weight, bias)(x, torch.float32)

    assert torch.allclose(found.double(), x.double() @ weight.double().T + bias, atol=1e-4)


def test_a_row_is_the_same_whoever_stands_beside_it(native: Native) -> None:
    x = random(11, 192)
    eight = Int8Product(native, (random(30, 192) * 40).to(torch.int8), random(30))
    q = (random(30, 192).abs() * 5).to(torch.uint8)
    four = Int4Product(native, q, random(30, 6), random(30, 6))

    for product in (eight, four):
        alone = torch.cat([product(row[None], torch.float32) for row in x])
        assert torch.equal(product(x, torch.float32), alone)


def test_threads_share_the_outputs_and_change_nothing(native: Native) -> None:
    product = Int8Product(native, (random(37, 192) * 40).to(torch.int8), random(37))
    alone = product(x := random(5, 192), torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(product(x, torch.float32), alone)
    finally:
        torch.set_num_threads(before)


def test_loops_that_are_wrong_are_found_out(
    native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fault_of(native) is None
    right = {name: getattr(native, name) for name in ("bf16", "int8", "int4")}

    def wrong(product: Product) -> Product:
        def run(weight: object, rows: object) -> int:
            code = product(weight, rows)
            place = ctypes.cast(rows, ctypes.POINTER(ctypes.c_void_p))[1]
            ctypes.cast(place, ctypes.POINTER(ctypes.c_float))[0] = float("nan")
            return code

        return run

    for name, product in right.items():
        monkeypatch.setattr(native, name, wrong(product))
        assert name in (fault_of(native) or "")
        monkeypatch.setattr(native, name, product)


def test_settled_tensors_are_the_same_and_begin_with_a_line() -> None:
    large, small = random(300, 77), random(3, 4)
    wanted = [large, large.bfloat16(), large.t()]
    found = [settled(tensor) for tensor in wanted]

    assert all(torch.equal(f, w) for f, w in zip(found, wanted, strict=True))
    assert all(f.data_ptr() % 64 == 0 and f.is_contiguous() for f in found)
    assert settled(small) is small
