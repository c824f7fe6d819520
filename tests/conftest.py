"""What every test shares: how generated cases are drawn, and where kernels run."""

from __future__ import annotations

import os

from hypothesis import settings

# The same cases each time where a failure would stop others; new ones on a desk.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Kernels of Triton are tested on the CPU. It decides when it is first imported, by whichever test.
os.environ.setdefault("TRITON_INTERPRET", "1")
