"""Check the kernels of a GPU, and time the engine on it, in one call of under eight minutes.

python -m bench.engine_gpu
TRITON_INTERPRET=1 python -m bench.engine_gpu --only checks    (without a GPU)

Needs nothing but torch, triton, safetensors, tokenizers and jinja2; `frugal engine bench
--gpu` does the same.
"""

from __future__ import annotations

import sys

from local_engine.bench.gpu import main

if __name__ == "__main__":
    sys.exit(main())
