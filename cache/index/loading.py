"""Faiss, kept to the thread that calls it."""

from __future__ import annotations

from typing import Any


def faiss_of_this_thread() -> Any:
    """Return the library, told to use no thread but this one.

    Its own default, as many threads as cores, lets them spin for their turn: on a busy
    machine a search then takes a hundred times as long, and the gateway's core with it.
    """
    import faiss

    faiss.omp_set_num_threads(1)
    return faiss
