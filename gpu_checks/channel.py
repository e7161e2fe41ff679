"""The way from a probe to its parent: one JSON message per line.

{"call": "cuInit"}               before each call of the driver
{"facts": {…}}                   what is known so far; a later one replaces it
{"add": ["devices", {…}]}        one more item of a list in it
{"end": ""}                      all was asked; a text here is a defect of ours
"""

from __future__ import annotations

import json
import os
from typing import Any

from .facts import encode


class Channel:
    """The way to the parent. The driver, which may print, does not have it: its output goes to /dev/null."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)  # not inherited by what the driver may start
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)

    def begin(self, call: str) -> None:
        """The parent knows which call is about to be made."""
        self._say({"call": call})

    def tell(self, known: Any) -> None:
        """The parent knows these facts."""
        self._say({"facts": encode(known)})

    def add(self, name: str, item: Any) -> None:
        """The parent knows one more item of the list of this name in the facts told last."""
        self._say({"add": [name, encode(item)]})

    def end(self, defect: str = "") -> None:
        """The parent knows that nothing more comes."""
        self._say({"end": defect})

    def _say(self, message: dict[str, Any]) -> None:
        data = memoryview(json.dumps(message).encode() + b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]
