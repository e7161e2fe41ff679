"""How many GPUs there should be."""

from __future__ import annotations

import re
from collections.abc import Mapping

VARIABLE = "GPU_CHECK_EXPECT"  # written by the hub from the profile that was granted
LARGEST = 1024  # more than any node has: a larger number is a slip


class ExpectationUnreadable(ValueError):
    """The environment says something that is no number of GPUs."""


def expectation(option: int | None, environ: Mapping[str, str]) -> int | None:
    """The number on the command line, else the hub's, else None: nobody said.

    An empty variable counts as not set. Raises ExpectationUnreadable.
    """
    if option is not None:
        return option
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,4}", text, re.ASCII) or int(text) > LARGEST:
        raise ExpectationUnreadable(f"{VARIABLE} must be a number from 0 to {LARGEST}, not {text!r:.40}")
    return int(text)
