"""What a command does whose output cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any

import click

from hub.text import visible

EXIT_FAILED = 1


class OneLineErrors(click.Group):
    """Says in one line that its output cannot be written."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read it has enough; click ends quietly
                raise
            _discard_output()
            click.echo(f"cannot go on: {visible(error.strerror or str(error))}", err=True)
            sys.exit(EXIT_FAILED)


def _discard_output() -> None:
    """What is buffered would be written again when the process ends, and fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
