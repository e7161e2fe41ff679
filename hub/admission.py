"""Whether a user of the hub may start a server: ``resolve`` with what the hub knows about them.

Everything that enters (form, REST body, saved options) meets ``judge``: early, in ``hub.gate``, so that nothing is
recorded of what is refused; and again in the spawner, at the moment of the start, where the answer reserves the caps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from tornado.web import HTTPError

from hub.freshness import groups_in_doubt
from hub.policy import Policy
from hub.quantity import Size
from hub.resolve import Decision, Granted, Refused, resolve

_STATUS = {"malformed": 400, "forbidden": 403}


class Named(Protocol):
    name: str


class HubUser(Protocol):
    """What is used of ``jupyterhub.user.User``."""

    name: str

    @property
    def groups(self) -> Iterable[Named]: ...

    @property
    def spawners(self) -> Mapping[str, Any]: ...


class RefusedRequest(HTTPError):
    """A refusal on its way to whoever asked: HTTP 4xx with one readable line."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(_STATUS[refused.kind], refused.reason)
        # What JupyterHub shows on pages and in JSON; the rest of the error is for the log.
        self.jupyterhub_message = refused.reason


class FailedStart(HTTPError):
    """A server that was granted and did not start: HTTP 503 with one readable line."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message)
        self.jupyterhub_message = message


class Pending:
    """The starts that were granted and have not come as far as the spawner, which then holds what was granted."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[str, str], Size] = {}

    @contextlib.contextmanager
    def start(self, user: HubUser, server: str, size: Size) -> Iterator[None]:
        """The start counts against the caps of ``user``."""
        self._sizes[user.name, server] = size
        try:
            yield
        finally:
            self._sizes.pop((user.name, server), None)

    def of(self, user: HubUser, *, beside: str) -> dict[str, Size]:
        return {name: size for (owner, name), size in self._sizes.items() if owner == user.name and name != beside}


def judge(
    user: HubUser, server: str, options: object, policy: Policy, *, pending: Pending | None = None
) -> Granted | Refused:
    """The answer to ``user`` starting ``server`` with ``options`` now: GPUs only with groups that are beyond doubt."""
    groups = [group.name for group in user.groups]
    running = (pending.of(user, beside=server) if pending else {}) | usage(user, beside=server)
    answer = resolve(user.name, groups, options=options, running=running, policy=policy)
    doubt = groups_in_doubt(user)
    if doubt and isinstance(answer, Granted) and answer.decision.size.gpus:
        return Refused(doubt, "forbidden")
    return answer


def usage(user: HubUser, *, beside: str) -> dict[str, Size]:
    """What each server of ``user`` but ``beside`` was granted, from its start until its end is complete."""
    granted = {
        name: getattr(spawner, "granted", None) for name, spawner in dict(user.spawners).items() if name != beside
    }
    return {name: decision.size for name, decision in granted.items() if isinstance(decision, Decision)}
