"""The admin port's way to look at the running policy, to try another one out, and to change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel, ConfigDict, Field

from gateway.access.keys import Caller
from gateway.api.guests import admin, guest, named_admin
from gateway.changes.apply import ChangeRefused, Editor, Outdated
from gateway.errors import GatewayError, InvalidRequest, NotFound
from policies.loader import MAX_FILE, PolicyError
from policies.show import masked

if TYPE_CHECKING:
    from gateway.app import Running
    from gateway.changes.file import Version

Text = Annotated[str, Field(max_length=MAX_FILE)]


class Edited(BaseModel):
    """An edited policy; its masks stand for the secrets of the file."""

    model_config = ConfigDict(extra="forbid")

    text: Text


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


class NoPolicyFile(GatewayError):
    """The gateway was started without a file that could be changed."""

    status = 409
    type = "invalid_request_error"
    default_code = "no_policy_file"


class CannotChange(GatewayError):
    """The policy is right in itself and could not be followed, or has changed meanwhile."""

    status = 409
    type = "invalid_request_error"
    default_code = "policy_not_changed"


class PolicyInvalid(InvalidRequest):
    """A policy with faults; `problems` stands beside the error."""

    default_code = "policy_invalid"

    def body(self) -> dict[str, Any]:
        """Return the envelope, with every fault and its place."""
        cause = self.__cause__
        problems = cause.problems if isinstance(cause, PolicyError) else ()
        return {**super().body(), "problems": [_fault(each).model_dump() for each in problems]}


def policy_routes(app: FastAPI, running: Running) -> None:
    """Add `/admin/policy`: a reader looks, an admin tries out, one with a key changes."""
    routes = APIRouter(prefix="/admin/policy", dependencies=[Depends(guest)], tags=["policy"])

    @routes.get("")
    def policy() -> dict[str, Any]:
        """Return the running policy with its secrets masked."""
        return masked(running.policy)

    @routes.get("/text")
    def text() -> PolicyText:
        """Return the file of the policy, its secrets masked."""
        editor = _editor(running)
        with _changing():
            shown, revision = editor.shown()
        return PolicyText(file=editor.file.path.name, text=shown, revision=revision)

    @routes.post("/check", dependencies=[Depends(admin)])
    def check(edited: Edited) -> Checked:
        """Say what is wrong with an edited policy, as `frugal check` does, and where."""
        from policies.notes import notes

        try:
            with _changing():
                _, found, _ = _editor(running).checked(edited.text)
        except PolicyInvalid as exc:
            return Checked(ok=False, problems=exc.body()["problems"], notes=[])
        return Checked(ok=True, problems=[], notes=list(notes(found)))

    @routes.post("/apply")
    async def apply(
        applied: Applied, caller: Annotated[Caller, Depends(named_admin)]
    ) -> PolicyVersion:
        """Write an edited policy and follow it; what cannot be followed changes nothing."""
        with _changing():
            version = await _editor(running).apply(
                applied.text, by=caller.key, based_on=applied.based_on
            )
        return _shown(version, version.revision)

    @routes.get("/history")
    def history() -> History:
        """Return the versions that were kept."""
        editor = _editor(running)
        with _changing():
            _, revision = editor.shown()
            return History(data=[_shown(each, revision) for each in editor.file.versions()])

    @routes.get("/history/{version}")
    def one_version(version: int) -> PolicyText:
        """Return the text of a version, its secrets masked."""
        from gateway.changes.masking import masked_text

        editor = _editor(running)
        with _changing():
            found = editor.file.version(version)
            if found is None:
                raise NotFound(f"there is no version {version}")
            whole = found.path.read_text(encoding="utf-8")
            shown = masked_text(whole, editor.file.path.name, editor.env)
        return PolicyText(file=editor.file.path.name, text=shown, revision=found.revision)

    @routes.post("/rollback")
    async def rollback(
        wanted: Rollback, caller: Annotated[Caller, Depends(named_admin)]
    ) -> PolicyVersion:
        """Write a version that was kept, and follow it."""
        with _changing():
            version = await _editor(running).roll_back(wanted.version, by=caller.key)
        return _shown(version, version.revision)

    app.include_router(routes)


def _editor(running: Running) -> Editor:
    if running.editor is None:
        raise NoPolicyFile("this gateway was started without a policy's file")
    return running.editor


@contextmanager
def _changing() -> Iterator[None]:
    try:
        yield
    except PolicyError as exc:
        many = len(exc.problems)
        raise PolicyInvalid(f"{many} to mend; first: {exc.problems[0]}", param="text") from exc
    except Outdated as exc:
        raise CannotChange(str(exc), code="policy_outdated") from exc
    except ChangeRefused as exc:
        raise CannotChange(str(exc)) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise CannotChange(f"the policy's file cannot be read or written: {exc}") from exc


def _fault(problem: Any) -> Fault:
    told = asdict(problem)
    return Fault(**{name: told[name] for name in Fault.model_fields})


def _shown(version: Version, current: str) -> PolicyVersion:
    return PolicyVersion(
        version=version.number,
        at=version.at.isoformat().replace("+00:00", "Z"),
        by=version.by,
        revision=version.revision,
        is_current=version.revision == current,
    )
