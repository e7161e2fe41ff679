"""Text that others wrote, made safe to show on one line."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# Cc control, Cf format (bidirectional overrides, zero width), Cs lone surrogates, Zl and Zp line separators: each can
# forge a second line, reorder what is read, or break an encoder. Zs are spaces; Co and Cn have no agreed look.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "Co", "Cn"})

# What Unicode calls default ignorable and is in no category above, and the empty Braille cell.
_IGNORABLE = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0100, 0xE01EF),
)


def hidden(character: str) -> bool:
    """Whether ``character`` shows nothing, or changes how others are shown. The space is none of these."""
    return character != " " and unicodedata.category(character) in _HIDDEN


def ignorable(character: str) -> bool:
    """Whether ``character`` is a letter or a mark that usually shows nothing: two names can differ by it and look
    the same. In an emoji it has its place."""
    return any(first <= ord(character) <= last for first, last in _IGNORABLE)


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
