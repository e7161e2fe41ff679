"""The one function that says yes or no to a server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from hub.groups import Entitlement, entitlement
from hub.images import ImageError, parse_image, parse_pattern
from hub.names import NameRefused, user_directory
from hub.options import UNLISTED_IMAGE, Option, OptionName, options_of, size_of
from hub.policy import Policy, Profile
from hub.quantity import QuantityError, Size, cores_text, gpus_text, memory_text, total
from hub.text import quoted, visible

_LONGEST_REASON = 600


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A server that may be started: what was granted, and what counts against the user's cap until it has stopped."""

    profile: str
    image: str
    size: Size

    def to_json(self) -> dict[str, object]:
        return {"profile": self.profile, "image": self.image, **self.size.to_json()}

    @classmethod
    def from_json(cls, document: object) -> Decision:
        """What ``to_json`` wrote. Raises ``QuantityError`` for anything else."""
        if not isinstance(document, dict):
            raise QuantityError("is no decision")
        size = {key: value for key, value in document.items() if key not in ("profile", "image")}
        return cls(
            profile=str(document.get("profile", "")),
            image=str(document.get("image", "")),
            size=Size.from_json(size),
        )


@dataclass(frozen=True)
class Granted:
    decision: Decision


@dataclass(frozen=True)
class Refused:
    """``reason`` is one readable line of at most 600 characters, without control or bidirectional ones.

    ``malformed``: no such request can be granted to anybody; ``forbidden``: not to this user, or not now.
    """

    reason: str
    kind: Literal["malformed", "forbidden"]


def resolve(
    user: str, groups: Collection[str], *, options: object, running: Mapping[str, Size], policy: Policy
) -> Granted | Refused:
    """Whether ``user``, a member of ``groups``, may start a server with ``options`` beside those ``running``.

    Total: any JSON value as ``options`` gives one of the two answers. What is granted is one of the choices offered,
    and never brings the sum over all running servers above the cap. Nothing is ignored and nothing is clipped.
    """
    try:
        user_directory(user, policy.storage.persist.directory)
    except NameRefused as refusal:
        return _forbidden(str(refusal))
    allowed = entitlement(groups, policy)
    profile = _profile(user, options, allowed)
    if isinstance(profile, Refused):
        return profile
    chosen = options if isinstance(options, dict) else {}
    decision = _choose(profile, policy.profiles[profile], chosen, policy)
    if isinstance(decision, Refused):
        return decision
    used = total(running.values())
    excess = (decision.size + used).excess(allowed.cap)
    if excess:
        return _forbidden(f"{_who(user)} would have {'; '.join(excess)}{_beside(running, used.rest(allowed.cap))}")
    return Granted(decision)


def _beside(running: Mapping[str, Size], rest: Size) -> str:
    """What else counts, and what is left; nothing where the server is alone."""
    if not running:
        return ""
    servers = f"{len(running)} other server{'s' if len(running) > 1 else ''}"
    left = f"{gpus_text(rest.gpus)}, {cores_text(rest.millicpu)}, {memory_text(rest.memory_bytes)}"
    return f" together with {servers}; left for this one: {left}"


def _profile(user: str, options: object, allowed: Entitlement) -> str | Refused:
    """The slug asked for, or the default."""
    if not allowed.profiles:
        return _forbidden(f"no profile is offered to {_who(user)}")
    offered = f"offered to {_who(user)}: {', '.join(allowed.profiles)}"
    if options is None:
        return allowed.profiles[0]
    if not isinstance(options, dict):
        return _malformed(f"options must be a JSON object with a profile, not {_kind(options)}; {offered}")
    if not options:
        return allowed.profiles[0]
    if "profile" not in options:
        return _malformed(f"options without a profile; {offered}")
    slug = options["profile"]
    if not isinstance(slug, str):
        return _malformed(f"profile must be a string, not {_kind(slug)}; {offered}")
    if slug not in allowed.profiles:
        return _forbidden(f"profile {quoted(slug)} is not among those {offered}")
    return slug


def _choose(slug: str, profile: Profile, chosen: Mapping[object, object], policy: Policy) -> Decision | Refused:
    """The decision that ``chosen`` describes, with the defaults of ``profile`` for what is not in it."""
    options = options_of(profile)
    accepted: list[str] = [option.name for option in options if option.offered]
    accepted += [UNLISTED_IMAGE] if profile.custom_image else []
    for key in chosen:
        if key != "profile" and key not in accepted:
            shown = quoted(key) if isinstance(key, str) else _kind(key)
            return _malformed(f"profile {slug} has no option {shown}; it has: {', '.join(accepted) or 'none'}")
    values: dict[OptionName, str | int] = {}
    for option in options:
        value = _pick(option, chosen[option.name]) if option.name in chosen else option.default.value
        if isinstance(value, Refused):
            return value
        values[option.name] = value
    if UNLISTED_IMAGE in chosen:
        if "image" in chosen:
            return _malformed(f"image and {UNLISTED_IMAGE} exclude each other: one of them is allowed")
        image = _custom_image(chosen[UNLISTED_IMAGE], policy)
        if isinstance(image, Refused):
            return image
        values["image"] = image
    return Decision(profile=slug, image=str(values["image"]), size=size_of(values))


def _pick(option: Option, key: object) -> str | int | Refused:
    choices = ", ".join(choice.key for choice in option.choices)
    if not isinstance(key, str):
        return _malformed(f"{option.name} must be a string, one of: {choices}; not {_kind(key)}")
    choice = option.choice(key)
    if choice is None:
        return _malformed(f"{option.name} {quoted(key)} is none of: {choices}")
    return choice.value


def _custom_image(text: object, policy: Policy) -> str | Refused:
    allowed = f"allowed: {', '.join(policy.images.allow) or 'none'}"
    if not isinstance(text, str):
        return _malformed(f"{UNLISTED_IMAGE} must be a string, not {_kind(text)}; {allowed}")
    try:
        image = parse_image(text)
    except ImageError as error:
        return _malformed(f"{error}; {allowed}")
    if not any(parse_pattern(pattern).matches(image) for pattern in policy.images.allow):
        return _forbidden(f"image {quoted(text)} is not allowed here; {allowed}")
    return text


def _kind(value: object) -> str:
    """What a JSON value is, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = ((str, "a string"), (int | float, "a number"), (list, "a list"), (dict, "an object"))
    return next((name for kind, name in names if isinstance(value, kind)), "something else")


def _who(user: str) -> str:
    return visible(user, limit=60) or "this user"


def _malformed(reason: str) -> Refused:
    return Refused(visible(reason, limit=_LONGEST_REASON), "malformed")


def _forbidden(reason: str) -> Refused:
    return Refused(visible(reason, limit=_LONGEST_REASON), "forbidden")
