"""What is left out by name: the defaults, and after them the lines of ``~/.persistignore``, which have the last word.

The lines are those of a gitignore(5), as if the defaults stood above them. From the home down, at each level of a path,
the last line that matches at that level decides; where none does, what was decided above holds. In a directory that is
left out Git looks no further, and then ``!.cache/important/`` would bring nothing back, for ``.cache`` is left out. So
there is one difference: a ``!`` line that names a place (it has a slash before its end, and does not begin with
``**/``) also reaches into a directory that an earlier line or a default leaves out. Such a directory is a *passage*: it
is walked, and saved only as far as something in it is brought back. A ``!`` line for a name anywhere, like ``!*.pyc``
or ``!important/``, does not reach into what is left out, as in Git: it would cost a walk through every cache.

A ``!`` line that matches a directory itself also brings back one that is left out for what is in it, and one that
matches a file a core dump. No line brings back the mounts, ``Save``, leftovers of NFS and of our own, special files and
what is over the cap; and no line leaves out ``.persistignore``.

The user is hostile: what would make us slow is refused as a whole, and what is no pattern is named and passed over.
pathspec translates the names of patterns; we match name by name, so that a directory knows what can match in it.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from sidecar.entry import legible
from sidecar.select import DEFAULTS, LINK_TO_PERSIST, NOT_OURS, SAVE_LINK, TIER

NAME = b".persistignore"
MAX_BYTES = 64 << 10
MAX_PARTS = 1000
"""Of all patterns together: names between slashes."""
MAX_PATTERN_BYTES = 16 << 10
"""Of all patterns together. With ``MAX_PARTS`` it bounds what one look at a name can cost to a few milliseconds."""

DEFAULT = 0
"""The number of everything that comes before the user's lines, which count from 1."""
_ALWAYS = sys.maxsize

_SHOWN_PROBLEMS = 3
_SHOWN_CHARACTERS = 100

_STARS = re.compile(rb"\*\*+")
_BRACKETS = re.compile(rb"\\.|\[([!^]?\]?[^\]]*)\]", re.DOTALL)
_WILD = re.compile(rb"[*?\[\\]")
_ASKS_PATHSPEC = re.compile(rb"[?\[\\]")
"""Stars and what means itself are all that we translate ourselves."""

# How pathspec writes a pattern "/name/": its beginning, its end, and its star.
_BEGINS, _ENDS, _STAR = b"^", b"(?P<ps_d>/)", b"[^/]*"


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """Why something is left out, and the number of the line that says so: only a later one can take it back."""

    reason: str
    line: int = DEFAULT


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One pattern. ``parts`` match the names on the way to what it means; None stands for any number of them."""

    left_out: LeftOut
    brings_back: bool
    only_directories: bool
    parts: tuple[re.Pattern[bytes] | None, ...]
    name: bytes
    """The last part as it was written."""

    @property
    def number(self) -> int:
        """Its number in the file; ``DEFAULT`` for a default."""
        return self.left_out.line

    @property
    def is_anywhere(self) -> bool:
        """Whether it matches a name at any depth."""
        return len(self.parts) == 2 and self.parts[0] is None and self.parts[1] is not None

    def reaches_into(self, left_out: LeftOut) -> bool:
        """Whether it can bring back what lies below a directory that is left out for ``left_out``."""
        return self.brings_back and self.parts[0] is not None and self.number > left_out.line

    def matches(self, name: bytes, *, is_directory: bool) -> bool:
        """Whether ``name``, where the last part stands, is meant."""
        if self.only_directories and not is_directory:
            return False
        last = self.parts[-1]
        return last is None or last.match(name) is not None


Thread = tuple[Line, int]
"""A line, and how many of its parts the names down to a directory have used up."""


class RulesHere:
    """What holds for the names in one directory."""

    __slots__ = ("_fixed", "_is_plain", "_lines", "_rules", "_threads", "brought_back", "left_out")

    def __init__(
        self,
        rules: Rules,
        threads: tuple[Thread, ...] = (),
        *,
        left_out: LeftOut | None = None,
        brought_back: bool = False,
        fixed: Mapping[bytes, LeftOut | None] | None = None,
    ) -> None:
        self._rules, self._threads, self._fixed = rules, threads, fixed or {}
        here = [line for line, used in threads if used == len(line.parts) - 1]
        self._lines = tuple(sorted([*here, *rules.anywhere], key=lambda line: -line.number)) if here else None
        self.left_out = left_out
        """Why everything in it is left out but for what a line brings back; None for an ordinary directory."""
        self.brought_back = brought_back
        """Whether a ``!`` line matches the directory itself."""
        self._is_plain = left_out is None and not threads and not self._fixed

    @property
    def is_closed(self) -> bool:
        """Whether nothing in it, however deep, can be saved."""
        return self.left_out is not None and not self._threads

    @property
    def asks_for_kind(self) -> bool:
        """Whether it can matter that a name is a directory's."""
        return self._rules.ask_for_kind or bool(self._threads)

    def decide(self, name: bytes, *, is_directory: bool) -> tuple[LeftOut | None, bool]:
        """Why ``name`` is left out, or None; and whether a ``!`` line that matches it is why it is not."""
        if name in self._fixed:
            return self._fixed[name], False
        rules, out = self._rules, self.left_out
        if name.startswith(rules.not_ours):
            return rules.why_not_ours(name), False
        lines = self._lines
        if lines is None:
            if not rules.may_match(name):
                return out, False
            lines = rules.anywhere
        for line in lines:
            if not line.matches(name, is_directory=is_directory):
                continue
            if not line.brings_back:
                return (out if out is not None and out.line >= line.number else line.left_out), False
            if out is None or line.reaches_into(out):
                return None, True
        return out, False

    def sift(self, names: Set[bytes]) -> dict[bytes, LeftOut]:
        """Those of ``names`` that ``leaves_out`` leaves out, and why. Costs little for the many no line speaks of."""
        suspects: Set[bytes] = names
        if self._lines is None and self.left_out is None:
            suspects = self._rules.suspects(names) | (names & self._fixed.keys())
        return {name: left_out for name in suspects if (left_out := self.leaves_out(name)) is not None}

    def leaves_out(self, name: bytes) -> LeftOut | None:
        """Why ``name`` is left out whatever it is; None too where it may be a passage, or its kind decides."""
        out = self.decide(name, is_directory=True)[0]
        if out is None or not self.asks_for_kind:
            return out
        return None if self.leads_on(name, out) else self.decide(name, is_directory=False)[0]

    def leads_on(self, name: bytes, left_out: LeftOut) -> bool:
        """Whether the directory ``name``, which is left out for ``left_out``, is a passage."""
        return any(line.reaches_into(left_out) for line, _ in self._step(name))

    def enter(self, name: bytes) -> RulesHere:
        """The directory ``name`` in it."""
        if self.is_closed or (self._is_plain and not self._rules.may_speak_of(name)):
            return self._rules.ordinary if self._is_plain else self
        left_out, brought_back = self.decide(name, is_directory=True)
        return self._rules.here(tuple(self._step(name)), left_out=left_out, brought_back=brought_back)

    def without(self, reason: str) -> RulesHere:
        """The same directory, left out for what is in it."""
        if self.left_out is not None:
            return self
        return self._rules.here(self._threads, left_out=LeftOut(reason), brought_back=False)

    def _step(self, name: bytes) -> dict[Thread, None]:
        found: dict[Thread, None] = {}
        for line, used in self._threads:
            part = line.parts[used]
            if part is None:
                found.update(dict.fromkeys(_reached(line, used)))
            elif used + 1 < len(line.parts) and part.match(name):
                found.update(dict.fromkeys(_reached(line, used + 1)))
        return found


def _reached(line: Line, used: int) -> Iterator[Thread]:
    yield line, used
    while line.parts[used] is None and used + 1 < len(line.parts):
        used += 1
        yield line, used


class Rules:
    """The defaults and the lines of one ``.persistignore``. ``home`` is where to begin."""

    def __init__(self, text: bytes = b"", mounts: Iterable[bytes] = ()) -> None:
        self.problem: str | None = None
        """What of the file does not count and why, for people; None where all of it does."""
        lines = [_line(pattern, LeftOut(reason)) for pattern, reason in DEFAULTS] + self._read(text)
        lines.reverse()
        self.anywhere = tuple(line for line in lines if line.is_anywhere)
        """Those that match a name at any depth, the last first."""
        self.ask_for_kind = any(line.only_directories for line in lines)
        self.not_ours = tuple(beginning for beginning, _ in NOT_OURS)
        self._prepare_may_match()
        self._not_ours = {beginning: LeftOut(reason, _ALWAYS) for beginning, reason in NOT_OURS}
        fixed: dict[bytes, LeftOut | None] = dict.fromkeys(mounts, LeftOut(TIER, _ALWAYS))
        fixed[SAVE_LINK] = LeftOut(LINK_TO_PERSIST, _ALWAYS)
        fixed[NAME] = None
        self.fixed: Mapping[bytes, LeftOut | None] = fixed
        """Names directly in the home of which no line decides."""
        self.ordinary = RulesHere(self)
        """A directory of which no line has said anything yet."""
        threads = [thread for line in lines if not line.is_anywhere for thread in _reached(line, 0)]
        self.home = RulesHere(self, tuple(threads), fixed=fixed)

    def _prepare_may_match(self) -> None:
        names, endings, globs = set(), [], []
        for line in self.anywhere:
            if not _WILD.search(line.name):
                names.add(line.name)
            elif line.name.startswith(b"*") and not _WILD.search(line.name[1:]):
                endings.append(line.name[1:])
            else:
                globs.append(_translate(line.name))
        self._names, self._endings = frozenset(names), tuple(endings)
        self._marks = (*(b"\0" + beginning for beginning in self.not_ours), *(ending + b"\0" for ending in endings))
        self._globs = _compile(b"|".join(globs)) if globs else None

    def here(self, threads: tuple[Thread, ...], *, left_out: LeftOut | None, brought_back: bool) -> RulesHere:
        """A directory that ``threads`` lead to. Most are alike, and share one."""
        if left_out is not None and not any(line.reaches_into(left_out) for line, _ in threads):
            threads = ()
        if left_out is None and not threads and not brought_back:
            return self.ordinary
        return RulesHere(self, threads, left_out=left_out, brought_back=brought_back)

    def may_match(self, name: bytes) -> bool:
        """Whether one of ``anywhere`` may match ``name``; False is certain."""
        if name in self._names or name.endswith(self._endings):
            return True
        return self._globs is not None and self._globs.match(name) is not None

    def may_speak_of(self, name: bytes) -> bool:
        """Whether ``may_match`` or ``why_not_ours`` speak of ``name``."""
        return name.startswith(self.not_ours) or self.may_match(name)

    def suspects(self, names: Set[bytes]) -> set[bytes]:
        """All of ``names`` that ``may_speak_of`` holds for."""
        beginnings, endings, globs = self.not_ours, self._endings, self._globs
        found = set(names & self._names)
        joined = b"\0%b\0" % b"\0".join(names)
        for mark in self._marks:
            if mark in joined:  # one look at all of them together, which is enough nearly always
                found.update(name for name in names if name.endswith(endings) or name.startswith(beginnings))
                break
        if globs is not None:
            found.update(filter(globs.match, names))
        return found

    def why_not_ours(self, name: bytes) -> LeftOut:
        """Why ``name``, which has one of these beginnings, is left out."""
        return next(why for beginning, why in self._not_ours.items() if name.startswith(beginning))

    def _read(self, text: bytes) -> list[Line]:
        patterns = _patterns(text)
        parts = sum(pattern.count(b"/") + 1 for pattern in patterns)
        if parts > MAX_PARTS or sum(map(len, patterns)) > MAX_PATTERN_BYTES:
            self.problem = (
                f"more than {MAX_PARTS} names or {MAX_PATTERN_BYTES} bytes of patterns: the defaults count alone"
            )
            return []
        lines, problems = [], []
        for pattern, number in patterns.items():
            try:
                lines.append(_line(pattern, LeftOut(f"left out by {NAME.decode()}: {_short(pattern)}", number)))
            except ValueError as error:
                problems.append(f"line {number}, {_short(pattern)}: {error}")
        if problems:
            more = len(problems) - _SHOWN_PROBLEMS
            self.problem = "; ".join(problems[:_SHOWN_PROBLEMS] + ([f"{more} more"] if more > 0 else []))
        return lines


def _patterns(text: bytes) -> dict[bytes, int]:
    """The patterns in ``text`` by the number of their line; of equal ones the last, which alone can decide."""
    found: dict[bytes, int] = {}
    for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        pattern = _trimmed(line)
        if pattern and not pattern.startswith(b"#"):
            found.pop(pattern, None)
            found[pattern] = number
    return found


def _trimmed(line: bytes) -> bytes:
    """The pattern in ``line``: without the carriage return of a DOS file, and without spaces at its end but escaped."""
    line = line.removesuffix(b"\r")
    bare = line.rstrip(b" ")
    escapes = len(bare) - len(bare.rstrip(b"\\"))
    return line[: len(bare) + 1] if escapes % 2 else bare


def _line(pattern: bytes, left_out: LeftOut) -> Line:
    """The line that ``pattern`` is. Raises ``ValueError``, which says what is wrong with it."""
    brings_back = pattern.startswith(b"!")
    only_directories = pattern.endswith(b"/")
    path = pattern[brings_back:].removesuffix(b"/")
    names = path.removeprefix(b"/").split(b"/")
    if not all(names):
        raise ValueError("nothing stands between two slashes" if any(names) else "it names nothing")
    parts: list[re.Pattern[bytes] | None] = [] if b"/" in path else [None]
    for name in names:
        if b"/" in path and _STARS.fullmatch(name):
            if parts[-1:] != [None]:
                parts.append(None)
        else:
            parts.append(_compile(_translate(name)))
    return Line(left_out, brings_back, only_directories, tuple(parts), names[-1])


def _translate(name: bytes) -> bytes:
    """A regular expression for what ``name``, one part of a pattern, matches. Raises ``ValueError``."""
    if _STARS.fullmatch(name):
        name = b"*"
    brackets = [match[1] or b"" for match in _BRACKETS.finditer(name)]
    if any(b"\\" in inside or b"[:" in b"[" + inside for inside in brackets):
        raise ValueError("in brackets neither a backslash nor a class like [:digit:] is understood")
    regex = _translate_wild(name) if _ASKS_PATHSPEC.search(name) else _STAR.join(map(re.escape, name.split(b"*")))
    first, *others = regex.split(_STAR)
    if not others:
        return first
    # Where a star is followed by another, the first place that fits is as good as any: no need to come back to it,
    # and a name full of near misses costs no more than its length.
    middle = b"".join(b"(?>" + _STAR + b"?" + part + b")" for part in others[:-1] if part)
    return first + middle + _STAR + others[-1]


def _translate_wild(name: bytes) -> bytes:
    """The same by pathspec, which knows all of Git's wildcards."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # a megabyte that few homes have a use for

    try:
        regex, counts = GitIgnoreSpecPattern.pattern_to_regex(b"/" + name + b"/")
    except ValueError:
        raise ValueError("nothing follows its backslash") from None
    if regex is None or counts is None or not (regex.startswith(_BEGINS) and regex.endswith(_ENDS)):
        raise ValueError("a bracket is not closed")
    return bytes(regex.removeprefix(_BEGINS).removesuffix(_ENDS))


def _compile(regex: bytes) -> re.Pattern[bytes]:
    """``regex`` for a whole name. Raises ``ValueError``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "[[" and "--" in brackets mean themselves
            return re.compile(rb"(?:" + regex + rb")\Z")
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"it is no pattern: {error}") from None


def _short(pattern: bytes) -> str:
    text = legible(pattern)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
