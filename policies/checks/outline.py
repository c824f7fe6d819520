"""The parts of a policy that are well formed, with the names of all that were written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policies.schema import Key, Model, Route, Server


@dataclass(frozen=True, slots=True)
class Outline:
    """A policy as far as it can be read: names are complete, sections only the sound ones."""

    model_names: Sequence[str]
    route_names: Sequence[str]
    models: Mapping[str, Model]
    routes: Mapping[str, Route]
    keys: Mapping[int, Key]
    server: Server
