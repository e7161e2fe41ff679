"""Container image references: parsed by their grammar, and matched against the images a policy allows.

The grammar is that of the OCI distribution's reference package (github.com/distribution/reference, ``regexp.go``),
with one thing more: a tag or a digest is required, so that what is started is what was named. A regular expression
such as ``^.+:.+$`` accepts a trailing newline, ``http://x:y``, ``img:tag --privileged``, and ``host:5000/img``, which
has no tag.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from hub.text import quoted

_LONGEST = 1024
_LONGEST_NAME = 255

_HOST = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")
_PATTERN_PART = re.compile(r"[a-z0-9._*-]+")

_NAME = rf"((?:{_REGISTRY.pattern})/)?{_COMPONENT.pattern}(/{_COMPONENT.pattern})*"
REFERENCE_REGEX = rf"^{_NAME}(:{_TAG.pattern}(@({_DIGEST.pattern}))?|@({_DIGEST.pattern}))$"
PATTERN_REGEX = rf"^(?:{_REGISTRY.pattern})(/{_PATTERN_PART.pattern})+$"
"""The two for JSON Schema: what is none of them is no reference and no pattern; what is one of them may be none."""


class ImageError(ValueError):
    """No image reference; the text says what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """A reference taken apart. ``registry`` is in lower case, and ``docker.io`` where none was written."""

    registry: str
    path: tuple[str, ...]
    tag: str = ""
    digest: str = ""


def parse_image(text: str) -> Image:
    """The parts of ``text``. Raises ``ImageError`` unless all of it is one reference with a tag or a digest."""
    if len(text) > _LONGEST:
        raise ImageError("an image reference has at most 1024 characters")
    name, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise ImageError(f"{quoted(text)} has no valid digest: it looks like @sha256:… with 64 hexadecimal digits")
    # A colon before the last slash is the port of a registry, not a tag.
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise ImageError(f"{quoted(text)} has no valid tag")
    if not colon and not digest:
        raise ImageError(f"{quoted(text)} names no version: write image:tag or image@sha256:…")
    registry, path = _split_name(head + slash + last)
    if not path or not all(_COMPONENT.fullmatch(part) for part in path) or not _REGISTRY.fullmatch(registry):
        raise ImageError(f"{quoted(text)} is no image reference: it looks like registry/name:tag")
    if len("/".join((registry, *path))) > _LONGEST_NAME:
        raise ImageError("an image's name has at most 255 characters")
    return Image(registry=registry, path=path, tag=tag, digest=digest)


def _split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Registry and path; a first part that names no registry belongs to the path on Docker Hub."""
    first, slash, rest = name.partition("/")
    if slash and _names_registry(first):
        return _canonical(first, rest)
    return _canonical("docker.io", name)


def _names_registry(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _canonical(registry: str, path: str) -> tuple[str, tuple[str, ...]]:
    """One spelling for what Docker Hub has under several: ``docker.io/x`` is ``docker.io/library/x``."""
    registry, parts = registry.lower(), tuple(path.split("/"))
    if registry in ("docker.io", "index.docker.io"):
        return "docker.io", parts if len(parts) > 1 else ("library", *parts)
    return registry, parts


@dataclass(frozen=True)
class ImagePattern:
    """A line of the allow-list: a registry, exactly, and a path in which ``*`` stands for one part, or a piece of it.

    ``quay.io/jupyter/*`` allows ``quay.io/jupyter/scipy-notebook:latest`` but nothing deeper; a last part ``**`` allows
    any depth. Tags and digests are free.
    """

    text: str
    registry: str
    path: tuple[str, ...]

    def matches(self, image: Image) -> bool:
        if image.registry != self.registry:
            return False
        wanted = self.path
        if wanted[-1] == "**":
            return len(image.path) >= len(wanted) and _parts_match(wanted[:-1], image.path[: len(wanted) - 1])
        return len(image.path) == len(wanted) and _parts_match(wanted, image.path)


def _parts_match(wanted: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    return all(_part_matches(pattern, part) for pattern, part in zip(wanted, parts, strict=True))


def _part_matches(pattern: str, part: str) -> bool:
    """Whether ``part`` is ``pattern``, whose ``*`` stand for anything; in linear time, however many there are."""
    head, *pieces = pattern.split("*")
    if not pieces:
        return part == pattern
    tail = pieces.pop()
    if len(part) < len(head) + len(tail) or not part.startswith(head) or not part.endswith(tail):
        return False
    at, end = len(head), len(part) - len(tail)
    for piece in pieces:
        found = part.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


@functools.lru_cache(maxsize=4096)
def parse_pattern(text: str) -> ImagePattern:
    """The pattern in ``text``. Raises ``ImageError``: a registry must be written out, and a tag has no place here."""
    first, _, rest = text.partition("/")
    parts = tuple(rest.split("/"))
    plausible = all(_PATTERN_PART.fullmatch(part) for part in parts)
    if not plausible or not _REGISTRY.fullmatch(first) or any("**" in part for part in parts[:-1]):
        raise ImageError(f"{quoted(text)} is no image pattern: it looks like quay.io/jupyter/* (without a tag)")
    if "**" in parts[-1] and parts[-1] != "**":
        raise ImageError(f"{quoted(text)}: ** can only be a whole last part, as in quay.io/jupyter/**")
    if not _names_registry(first):
        raise ImageError(f"{quoted(text)} names no registry: write it out, as in docker.io/jupyter/*")
    if parts == ("**",):
        return ImagePattern(text=text, registry=_canonical(first, "x")[0], path=parts)
    registry, path = _canonical(first, rest)
    return ImagePattern(text=text, registry=registry, path=path)
