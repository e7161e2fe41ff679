"""Whether a user of the hub may start a server: ``resolve`` with what the hub knows about them.

Everything that enters (form, REST body, saved options) meets ``judge``: early, in ``hub.gate``, so that nothing is
recorded of what is refused; and again in the spawner, at the moment of the start, where the answer reserves the caps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from tornado.web import HTTPError

from hub.freshness import groups_in_doubt
from hub.groups import entitlement
from hub.names import DEFAULT_SERVER
from hub.policy import Policy
from hub.quantity import Size
from hub.resolve import Granted, Refused, resolve
from hub.text import quoted

_STATUS = {"malformed": 400, "forbidden": 403}


GRANTED = "granted"
"""The key of the decision in a server's stored state."""


class Named(Protocol):
    name: str


class Holder(Protocol):
    """What is used of ``hub.spawner.SidecarSpawner``."""

    unreadable: bool

    def holds(self, cap: Size) -> Size | None: ...

    def is_ending(self) -> bool: ...


class HubUser(Protocol):
    """What is used of ``jupyterhub.user.User``."""

    name: str

    @property
    def groups(self) -> Iterable[Named]: ...

    @property
    def spawners(self) -> Mapping[str, Any]: ...

    @property
    def orm_spawners(self) -> Mapping[str, Any]: ...


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
        self._starts: dict[object, tuple[str, str, Size]] = {}

    def start(self, user: HubUser, server: str, size: Size) -> Callable[[], None]:
        """``size`` counts against the caps of ``user`` until what is returned is called."""
        key = object()  # two requests can start one server at the same time
        self._starts[key] = (user.name, server, size)
        return lambda: self._over(key)

    def _over(self, key: object) -> None:
        self._starts.pop(key, None)

    def of(self, user: HubUser, *, beside: str) -> dict[str, Size]:
        """What the starts of ``user`` will hold; the most of each kind where one server is started twice."""
        found: dict[str, Size] = {}
        for owner, server, size in self._starts.values():
            if owner == user.name and server != beside:
                other = found.get(server, Size())
                found[server] = Size(
                    millicpu=max(size.millicpu, other.millicpu),
                    memory_bytes=max(size.memory_bytes, other.memory_bytes),
                    gpus=max(size.gpus, other.gpus),
                )
        return found


def judge(
    user: HubUser, server: str, options: object, policy: Policy, *, pending: Pending | None = None
) -> Granted | Refused:
    """The answer to ``user`` starting ``server`` with ``options`` now: GPUs only with groups that are beyond doubt."""
    groups = [group.name for group in user.groups]
    cap = entitlement(groups, policy).cap
    running = (pending.of(user, beside=server) if pending else {}) | usage(user, beside=server, cap=cap)
    answer = resolve(user.name, groups, options=options, running=running, policy=policy)
    if isinstance(answer, Granted) and any(name == server and one.is_ending() for name, one in _holders(user)):
        # A start would put its own decision in the place of the one that counts what is left.
        return Refused("the server has not ended yet", "forbidden")
    doubt = groups_in_doubt(user)
    if doubt and isinstance(answer, Granted) and answer.decision.size.gpus:
        return Refused(doubt, "forbidden")
    unknown = [
        quoted(name or DEFAULT_SERVER) for name in running if name in user.spawners and user.spawners[name].unreadable
    ]
    if unknown and isinstance(answer, Refused) and answer.kind == "forbidden":
        why = (
            f"what {' and '.join(unknown)} was granted is not known, so it counts as all that is allowed; stop it first"
        )
        return Refused(f"{answer.reason} ({why})", answer.kind)
    return answer


def usage(user: HubUser, *, beside: str, cap: Size) -> dict[str, Size]:
    """What each server of ``user`` but ``beside`` holds, from its start until its end is complete.

    A server of which nobody can say what it was granted holds the whole ``cap``: less would be a way around it.
    """
    held = {name: spawner.holds(cap) for name, spawner in _holders(user) if name != beside}
    return {name: size for name, size in held.items() if size is not None}


def _holders(user: HubUser) -> Iterator[tuple[str, Holder]]:
    """Every server that can hold something: those that JupyterHub has in memory, and those whose end failed."""
    yield from dict(user.spawners).items()
    for name, record in dict(user.orm_spawners).items():
        if name not in user.spawners and GRANTED in (record.state or {}):
            yield name, user.spawners[name]  # made from the record
