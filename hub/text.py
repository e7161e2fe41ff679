"""Text that others wrote, made safe to show on one line."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# Cc control, Cf format (bidirectional overrides, zero width), Cs lone surrogates, Zl and Zp line separators: each can
# forge a second line, reorder what is read, or break an encoder. Zs are spaces; Co and Cn have no agreed look.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "Co", "Cn"})


def hidden(character: str) -> bool:
    """Whether ``character`` shows nothing, or changes how others are shown. The space is none of these."""
    return character != " " and unicodedata.category(character) in _HIDDEN


def visible(text: str, *, limit: int = 120) -> str:
    """``text`` as one printable line of at most ``limit`` characters; what cannot be seen appears as ``\\uXXXX``."""
    shown = []
    length = 0
    for character in text:
        piece = _escape(character) if hidden(character) else character
        length += len(piece)
        if length > limit - 1:
            shown.append("…")
            break
        shown.append(piece)
    return "".join(shown)


def quoted(text: str, *, limit: int = 80) -> str:
    """``text`` in quotation marks, safe as in ``visible``."""
    return f"'{visible(text, limit=limit)}'"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def columns(text: str) -> int:
    """How many columns a terminal needs for ``text``, which is ``visible``: an emoji takes two, an accent none."""
    count = 0
    for character in text:
        if character == "\ufe0f":
            count += 1  # the emoji look of what takes one column as text
        elif not unicodedata.combining(character) and unicodedata.category(character) not in ("Mn", "Me"):
            count += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return count


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """``rows`` as lines with aligned columns; what is in them appears as in ``visible``."""
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
