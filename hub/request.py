"""What a request brings, read strictly.

What could be read in two ways is refused: JupyterHub reads the same bytes again, and must find the same in them.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from tornado.httputil import HTTPServerRequest

from hub.admission import RefusedRequest
from hub.resolve import Refused
from hub.text import ignorable, quoted, visible

LONGEST_BODY_BYTES = 64 * 1024
"""No options are longer: a profile and four choices."""

_LONGEST_NAME = 128
"""Of a server, as it stands in an address: the database has 255 for a client's name, which holds the user's too."""

_LONGEST_DISPLAY_NAME = 255
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_NOT_OPTIONS = frozenset({"next", "display_name", "_xsrf"})
"""Fields that are for JupyterHub itself."""


class _Ambiguous(ValueError):
    """JSON that two readers can understand differently."""


def malformed(reason: str) -> RefusedRequest:
    """HTTP 400 with ``reason`` as one readable line."""
    return RefusedRequest(Refused(visible(reason, limit=300), "malformed"))


def json_body(body: bytes) -> object:
    """The JSON value in ``body``, ``None`` if there is none.

    Raises ``RefusedRequest`` for what is not JSON in UTF-8, has a key twice, holds NaN or Infinity, or is too long.
    """
    _check_length(body)
    if not body.strip():
        return None
    try:
        value: object = json.loads(body.decode("utf-8"), object_pairs_hook=_keys_once, parse_constant=_no_number)
    except _Ambiguous as error:
        raise malformed(f"the body is ambiguous: {error}") from error
    except (ValueError, RecursionError) as error:
        raise malformed("the body is not JSON") from error
    return value


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Ambiguous(f"{quoted(key)} is there twice")
        found[key] = value
    return found


def _no_number(text: str) -> object:
    raise _Ambiguous(f"{text} is no JSON number")


def form_fields(request: HTTPServerRequest) -> dict[str, list[str]]:
    """The fields of a form, and for each file one named ``…_file``, as JupyterHub calls it.

    Raises ``RefusedRequest`` for a body that is no form, is too long or is not UTF-8.
    """
    _check_length(request.body)
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if request.body and (kind not in _FORMS or "Content-Encoding" in request.headers):
        raise malformed(f"the body is not a form: its type is {quoted(kind)}")
    fields = text_fields(request.body_arguments)
    fields.update({f"{name}_file": [] for name in request.files})
    return fields


def text_fields(arguments: dict[str, list[bytes]]) -> dict[str, list[str]]:
    """``arguments`` as text, without those that are for JupyterHub itself. Raises ``RefusedRequest``."""
    fields = {}
    for name, values in arguments.items():
        if name not in _NOT_OPTIONS:
            try:
                fields[name] = [value.decode("utf-8") for value in values]
            except UnicodeDecodeError as error:
                raise malformed(f"{quoted(name)} is not UTF-8") from error
    return fields


def _check_length(body: bytes) -> None:
    if len(body) > LONGEST_BODY_BYTES:
        raise malformed(f"the body is too long: {len(body)} bytes, and {LONGEST_BODY_BYTES} are allowed")


def check_server_name(name: str) -> None:
    """Raises ``RefusedRequest`` for a name that cannot be part of an address or be read.

    JupyterHub 6 has stricter rules of its own for new servers; JupyterHub 5 has none, and records any name.
    """
    if "/" in name or name in (".", ".."):
        raise malformed(f"a server cannot be called {quoted(name)}: its name is a part of its address")
    if visible(name, limit=len(name) + 2) != name or name != name.strip() or any(map(ignorable, name)):
        raise malformed(f"the name of the server, {quoted(name)}, has characters that cannot be seen")
    if len(quote(name)) > _LONGEST_NAME:
        raise malformed(f"the name of the server is too long: {quoted(name, limit=20)}")


def check_display_name(name: object) -> None:
    """Raises ``RefusedRequest`` for a name that cannot be read. ``None`` and an empty one mean no name."""
    if name is None or name == "":
        return
    if not isinstance(name, str):
        raise malformed("display_name must be a string")
    if len(name) > _LONGEST_DISPLAY_NAME:
        raise malformed(f"display_name is too long: {len(name)} characters, and {_LONGEST_DISPLAY_NAME} are allowed")
    if visible(name, limit=len(name) + 2) != name:
        raise malformed(f"display_name has characters that cannot be seen: {quoted(name)}")
