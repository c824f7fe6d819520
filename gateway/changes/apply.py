"""Changing the running policy: an edited text is checked, written, followed, and kept."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.changes.bounds import added
from gateway.changes.file import BY_HAND, PolicyFile, Version, revision_of
from gateway.changes.masking import masked_text, unmasked_text
from gateway.checking import checked_text
from policies.document import read_document
from policies.loader import MAX_FILE, PolicyError
from policies.problems import Problem

if TYPE_CHECKING:
    from gateway.money.prices import Price
    from gateway.resilience.site import Site
    from policies.schema import Policy


class ChangeRefused(Exception):
    """A change that is right in itself and cannot be made now."""


class Outdated(ChangeRefused):
    """The file has changed since the text that was edited."""


@dataclass(slots=True)
class Editor:
    """The policy's file, as it may be changed over HTTP.

    `tell_others` lets the other workers follow the file, too.
    """

    file: PolicyFile
    site: Site
    wall: Callable[[], float]
    tell_others: Callable[[], None] = lambda: None
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def shown(self) -> tuple[str, str]:
        """Return the text without its secrets, and its revision. Raises PolicyError, OSError."""
        text = self.file.read()
        return masked_text(text, self.file.path.name, self.env), revision_of(text)

    def checked(self, text: str) -> tuple[str, Policy, dict[str, Price]]:
        """Return an edited text with its secrets, as it would be served. Raises PolicyError."""
        if len(text) > MAX_FILE:
            message = f"expected at most {MAX_FILE} characters, found more"
            raise PolicyError([Problem(self.file.path.name, 0, 0, "", message)])
        name, current = self.file.path.name, self.file.read()
        whole = unmasked_text(text, current, name, self.env)
        bounded = added(
            read_document(whole, name=name, env=self.env),
            read_document(current, name=name, env=self.env),
        )
        if bounded:
            raise PolicyError(bounded)
        return (whole, *self._served(whole))

    async def apply(self, text: str, *, by: str, based_on: str | None) -> Version:
        """Follow an edited text from now on.

        `based_on` is the revision of the text that was edited. Raises PolicyError,
        Outdated, ChangeRefused, OSError; the old policy serves on then.
        """
        async with self.turn:
            before = await asyncio.to_thread(self.file.read)
            if based_on is not None and based_on != revision_of(before):
                raise Outdated("the file has changed since; read it again, and edit that")
            whole, _, _ = await asyncio.to_thread(self.checked, text)
            return await self._follow(before, whole, by)

    async def roll_back(self, number: int, *, by: str) -> Version:
        """Follow a version that was kept. Raises as `apply` does."""
        async with self.turn:
            version = await asyncio.to_thread(self.file.version, number)
            if version is None:
                raise ChangeRefused(f"there is no version {number}")
            whole = await asyncio.to_thread(version.path.read_text, encoding="utf-8")
            await asyncio.to_thread(self._served, whole)
            return await self._follow(await asyncio.to_thread(self.file.read), whole, by)

    def _served(self, whole: str) -> tuple[Policy, dict[str, Price]]:
        folder, name = self.file.path.parent, self.file.path.name
        return checked_text(whole, name=name, env=self.env, folder=folder)

    async def _follow(self, before: str, whole: str, by: str) -> Version:
        now = datetime.fromtimestamp(self.wall(), UTC)
        await asyncio.to_thread(self.file.keep, before, by=BY_HAND, at=now)
        await asyncio.to_thread(self.file.write, whole)
        if not await self.site.reload():
            await asyncio.to_thread(self.file.write, before)
            raise ChangeRefused(f"the policy stays as it was: {self.site.trouble}")
        self.tell_others()
        return await asyncio.to_thread(self.file.keep, whole, by=by, at=now)
