"""Products of any number of rows are torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from local_engine.quant.plain import plain_product


@pytest.mark.parametrize("rows", [1, 2, 16, 32, 33, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [False, True])
def test_products_of_few_and_many_rows_are_right_and_contiguous(
    rows: int, dtype: torch.dtype, has_bias: bool
) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (
        torch.randn(size, generator=generator).to(dtype) for size in ((rows, 96), (160, 96), (160,))
    )
    exact = F.linear(x.double(), weight.double(), bias.double() if has_bias else None)
    found = plain_product(x, weight, bias if has_bias else None)

    assert (found.dtype, found.shape) == (dtype, exact.shape)
    assert found.is_contiguous()
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    assert (found.double() - exact).abs().max() <= tolerance * exact.abs().max()
