"""Text that others wrote, made safe to show on one line."""

from __future__ import annotations

import unicodedata

# Cc control, Cf format (bidirectional overrides, zero width), Cs lone surrogates, Zl and Zp line separators: each can
# forge a second line, reorder what is read, or break an encoder. Zs are spaces; Co and Cn have no agreed look.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "Co", "Cn"})


def visible(text: str, *, limit: int = 120) -> str:
    """``text`` as one printable line of at most ``limit`` characters; what cannot be seen appears as ``\\uXXXX``."""
    shown = []
    length = 0
    for character in text:
        piece = _escape(character) if character != " " and unicodedata.category(character) in _HIDDEN else character
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
