"""One row's norm in few operations, beside torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from local_engine.model import normalized_row


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
def test_one_row_is_normalized_as_torch_does(dtype: torch.dtype, size: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (size * torch.randn(1, 700, generator=generator)).to(dtype)
    weight = torch.randn(700, generator=generator).to(dtype)
    wanted = F.rms_norm(x.double(), (700,), weight.double(), 1e-6)

    found = normalized_row(x, weight, 1e-6)

    step = torch.finfo(dtype).eps
    assert found.dtype == dtype
    assert ((found.double() - wanted).abs() <= step * wanted.abs()).all()


def test_what_is_no_number_stays_none() -> None:
    weight = torch.ones(4)

    assert normalized_row(torch.tensor([[1.0, torch.nan, 0, 0]]), weight, 1e-6).isnan().all()
    assert normalized_row(torch.zeros(1, 4), weight, 0.0).isnan().all()
    assert normalized_row(torch.zeros(1, 4), weight, 1e-6).eq(0).all()
