"""What the admin port takes and says of policies."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from policies.loader import MAX_FILE

Text = Annotated[str, Field(max_length=MAX_FILE)]


class Edited(BaseModel):
    """An edited policy; its masks stand for the secrets of the file."""

    model_config = ConfigDict(extra="forbid")

    text: Text


class Planned(Edited):
    """An edited policy to try on the traffic since then."""

    since: Annotated[str, Field(max_length=64)] = "7d"


class PlannedRoute(BaseModel):
    """One name that clients asked for: what it cost, and would; equal ends where that is known.

    `expected_…` goes by how often each model's drafts were accepted; null where nobody knows.
    `unsure` requests could have gone two ways; `refused` ones would not be let in.
    """

    route: str
    requests: int
    refused: int
    unsure: int
    now_nano_usd: int
    low_nano_usd: int
    high_nano_usd: int
    expected_nano_usd: int | None
    now_latency_ms: float
    expected_latency_ms: float | None
    calls_now: dict[str, int]
    calls: dict[str, dict[str, int]]
    notes: list[str]


class PlannedChange(BaseModel):
    """One value that differs; null where there is none. Secrets are masked."""

    path: str
    before: Any
    after: Any


class PlanTold(BaseModel):
    """What a policy would have made of the newest `replayed` of `requests` since then."""

    since: str
    requests: int
    replayed: int
    now_nano_usd: int
    low_nano_usd: int
    high_nano_usd: int
    expected_nano_usd: int | None
    refused: int
    routes: list[PlannedRoute]
    changes: list[PlannedChange]
    unknowable: list[str]


class Applied(Edited):
    """An edited policy to follow, and the revision of the text that was edited."""

    based_on: Annotated[str, Field(max_length=64)] | None = None


class Rollback(BaseModel):
    """A version to go back to."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1)]


class PolicyText(BaseModel):
    """The file's text, each secret as a mask, and what tells it from another text."""

    file: str
    text: str
    revision: str


class Fault(BaseModel):
    """One thing to mend; lines and columns count from 1, 0 where there is no such place."""

    line: int
    column: int
    path: str
    message: str
    hint: str | None


class Checked(BaseModel):
    """What is wrong with a policy, and where; with nothing wrong, what is worth knowing."""

    ok: bool
    problems: list[Fault]
    notes: list[str]


class PolicyVersion(BaseModel):
    """A version that was kept. `by` is the key that applied it; `file` for one edited by hand."""

    version: int
    at: str
    by: str
    revision: str
    is_current: bool


class History(BaseModel):
    """Versions, newest first."""

    data: list[PolicyVersion]
