"""A cross-encoder that reads two questions together, off everybody's way.

It has a thread of its own, a bounded queue and a deadline; what is late, absent or
broken is as if nobody had asked it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from cache.semantic.embedder import EmbedderError

MOST_WAITING = 8
_log = logging.getLogger(__name__)


class PairScorer(Protocol):
    """Says how alike two questions are; blocking, made and called in one worker thread."""

    def score(self, asked: str, stored: str) -> float:
        """Return the log-odds, on the model's own scale, that two questions ask for the same."""
        ...


def load_cross_encoder(name: str, *, threads: int = 1) -> PairScorer:
    """Load a cross-encoder of sentence-transformers by name or folder. Raises EmbedderError."""
    try:
        return SentenceTransformerPairs(name, threads=threads)
    except ImportError as exc:
        raise EmbedderError(
            f"the cross-encoder {name!r} needs {exc.name}; "
            "install the extra: pip install 'frugal-gateway[semantic]'"
        ) from exc


class SentenceTransformerPairs:
    """Any cross-encoder with one score a pair, without code of the model's own."""

    def __init__(self, name: str, *, threads: int = 1) -> None:
        from sentence_transformers import CrossEncoder
        from threadpoolctl import threadpool_limits

        folder = Path(name).expanduser()
        try:
            self._model: Any = CrossEncoder(
                str(folder) if folder.is_dir() else name, activation_fn=_as_it_is
            )
        except (OSError, ValueError) as exc:
            raise EmbedderError(f"no cross-encoder {name!r} could be loaded: {exc}") from exc
        labels = int(self._model.config.num_labels)
        if labels != 1:
            raise EmbedderError(
                f"the cross-encoder {name!r}: expected one score a pair, found {labels} labels; "
                "name one that was made for duplicates or likeness"
            )
        # OpenMP counts threads for each thread that calls it, and torch sets this one's count
        # when it first works here: so it works once, is bounded then, and others are left alone.
        self.score("", "")
        threadpool_limits(threads, user_api="openmp")

    def score(self, asked: str, stored: str) -> float:
        """Return the score of a pair before any activation."""
        return float(self._model.predict([(asked, stored)], show_progress_bar=False)[0])


def _as_it_is(logits: Any) -> Any:
    return logits


class Verification:
    """Scores of pairs for everybody in this process; models are loaded when first asked for."""

    def __init__(
        self,
        load: Callable[[str], PairScorer] = load_cross_encoder,
        *,
        deadline_s: float = 0.25,
    ) -> None:
        self._load = load
        self._deadline_s = deadline_s
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cross-encoder")
        self._models: dict[str, Future[PairScorer]] = {}
        self._waiting = 0
        self._is_told: set[str] = set()

    async def score(self, name: str, asked: str, stored: str) -> float | None:
        """Return a model's score of a pair; None where it cannot be had in time."""
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = self._worker.submit(self._load, name)
        if not model.done() or self._waiting >= MOST_WAITING:
            return None
        self._waiting += 1
        pending = asyncio.get_running_loop().run_in_executor(
            self._worker, _scored, model, asked, stored
        )
        pending.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(pending), self._deadline_s)
        except TimeoutError:
            self._tell(name, f"no score within {self._deadline_s:g} s")
        except Exception as exc:
            self._tell(name, str(exc))
        return None

    def close(self) -> None:
        """Wait for the pair that is read now; those that wait are given up."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _done(self, pending: asyncio.Future[float]) -> None:
        self._waiting -= 1
        if not pending.cancelled():
            pending.exception()  # whoever asked may have left; nobody else need hear of it

    def _tell(self, name: str, what: str) -> None:
        if name not in self._is_told:
            self._is_told.add(name)
            _log.warning("answers go unverified where %s does not answer: %s", name, what)


def _scored(model: Future[PairScorer], asked: str, stored: str) -> float:
    score = model.result().score(asked, stored)
    if not isfinite(score):
        raise ValueError(f"expected a finite score, found {score}")
    return score
