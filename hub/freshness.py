"""How sure the hub is of a user's groups.

A profile without GPUs starts with the groups that were known last; one with GPUs only with groups that the identity
provider has confirmed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from hub.text import visible


@dataclass(frozen=True)
class _Confirmed:
    at_s: float


@dataclass(frozen=True)
class _Failed:
    when: str
    why: str


class Freshness:
    """What came of the last question about each user's groups. Lost when the hub ends: then nothing is fresh."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._monotonic = monotonic
        self._now = now
        self._last: dict[str, _Confirmed | _Failed] = {}

    def confirmed(self, user: str) -> None:
        self._last[user] = _Confirmed(self._monotonic())

    def failed(self, user: str, why: str) -> None:
        """One failure is enough, however recent the last confirmation: the groups may have been taken away since."""
        self._last[user] = _Failed(self._now().strftime("%H:%M UTC"), why)

    def forget(self, user: str) -> None:
        self._last.pop(user, None)

    def doubt(self, user: str, *, longest_s: float) -> str | None:
        """``None`` if the groups were confirmed within ``longest_s``; if not, one readable line that says why GPUs
        cannot be had."""
        last = self._last.get(user)
        if isinstance(last, _Confirmed):
            age_s = self._monotonic() - last.at_s
            if age_s <= longest_s:
                return None
            told = f"were confirmed with the identity provider {age_s:.0f} s ago, and not since"
        elif isinstance(last, _Failed):
            told = f"could not be confirmed with the identity provider at {last.when}: {last.why}"
        else:
            told = "have not been confirmed with the identity provider since the hub was started"
        return visible(
            f"no GPUs now: the groups of {visible(user, limit=60)} {visible(told, limit=200)}; "
            "a server without GPUs can be started",
            limit=400,
        )


def groups_in_doubt(user: object) -> str | None:
    """Why ``user``, a user of the hub, cannot have GPUs now; ``None`` if their groups are as the provider says.

    The authenticator knows. One that gets its groups from nowhere else has nothing to be unsure of.
    """
    ask: Callable[[str], str | None] | None = getattr(getattr(user, "authenticator", None), "groups_in_doubt", None)
    name = getattr(user, "name", "")
    return ask(name) if ask is not None else None
