"""What the shared cache needs of the service between the processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

Reply = bytes | int | list["Reply"] | None
"""What the service answers."""

Hear = Callable[[bytes], None]
"""Takes one message of a channel."""


class Link(Protocol):
    """A connection that fails fast: one missed deadline, and it is down for everybody.

    Until it is up again, nothing is sent and every call raises StoreFailed at once.
    """

    @property
    def is_up(self) -> bool:
        """Return whether calls are tried at all."""
        ...

    @property
    def trouble(self) -> str:
        """Return why the link was last down."""
        ...

    @property
    def failures(self) -> int:
        """Return how often the link has gone down."""
        ...

    @property
    def refusals(self) -> int:
        """Return how many commands were answered with an error."""
        ...

    def call(self, *command: bytes) -> Awaitable[Reply]:
        """Send a command and return the answer. Raises StoreFailed."""
        ...

    def post(self, *command: bytes) -> None:
        """Send a command without waiting; what becomes of it is counted, no more."""
        ...

    def run(self, script: str, keys: Sequence[bytes], *arguments: bytes) -> Awaitable[Reply]:
        """Run one of the scripts that the link was given. Raises StoreFailed."""
        ...

    def post_run(self, script: str, keys: Sequence[bytes], *arguments: bytes) -> None:
        """Run a script without waiting."""
        ...

    def listen(self, channel: bytes, hear: Hear) -> None:
        """Hear a channel from now on; what is said while the link is down is lost."""
        ...

    def when_up(self, react: Callable[[], None]) -> None:
        """Call back each time the link has come up."""
        ...

    def when_down(self, react: Callable[[], None]) -> None:
        """Call back each time the link has gone down."""
        ...
