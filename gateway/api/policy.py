"""The admin port's way to look at the running policy, to try another one out, and to change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI

from gateway.access.keys import Caller
from gateway.api.guests import admin, guest, named_admin
from gateway.api.policy_shapes import (
    Applied,
    Checked,
    Edited,
    Fault,
    History,
    Planned,
    PlanTold,
    PolicyText,
    PolicyVersion,
    Rollback,
)
from gateway.changes.apply import ChangeRefused, Editor, Outdated
from gateway.errors import GatewayError, InvalidRequest, NotFound
from policies.loader import PolicyError
from policies.show import masked

if TYPE_CHECKING:
    from gateway.app import Running
    from gateway.changes.file import Version


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

    _trial_routes(routes, running)
    app.include_router(routes)


def _trial_routes(routes: APIRouter, running: Running) -> None:
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

    @routes.post("/plan", dependencies=[Depends(admin)])
    def plan(edited: Planned) -> PlanTold:
        """Replay logged traffic through an edited policy, before it is followed."""
        return planned(running, edited)

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

    @routes.post("/rollback")
    async def rollback(
        wanted: Rollback, caller: Annotated[Caller, Depends(named_admin)]
    ) -> PolicyVersion:
        """Write a version that was kept, and follow it."""
        with _changing():
            version = await _editor(running).roll_back(wanted.version, by=caller.key)
        return _shown(version, version.revision)


def planned(running: Running, edited: Planned) -> PlanTold:
    """Return what an edited policy would have made of logged traffic. Raises GatewayError."""
    from gateway.api.reports import reporting
    from gateway.changes.plan import plan as found
    from gateway.resilience.site import in_place_of

    with _changing():
        _, policy, _ = _editor(running).checked(edited.text)
    # As it would be followed: what the command line says of the server is no change.
    before, policy = (in_place_of(running.policy, each) for each in (running.policy, policy))
    made = frozenset(caller.key for caller in running.keys.callers())
    made -= {key.name for key in running.policy.access.keys}
    now = datetime.fromtimestamp(running.wall(), UTC)
    with reporting():
        told = found(running.ledger_url, before, policy, since=edited.since, now=now,
                     made_keys=made)  # fmt: skip
    return PlanTold.model_validate(asdict(told))


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
