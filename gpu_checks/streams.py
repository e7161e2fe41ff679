"""Standard streams that may be closed, full, or read by nobody: what is said there is best effort."""

from __future__ import annotations

import os
import sys

import click


def complete() -> None:
    """Each of the descriptors 0, 1 and 2 is open: a file of ours must not become somebody's output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one


def say(text: str, *, err: bool = False) -> None:
    """The text is on standard output or, with ``err``, on standard error, or it cannot be told."""
    stream, descriptor = (sys.stderr, 2) if err else (sys.stdout, 1)
    if stream is None:  # it was closed when the interpreter started
        return
    try:
        click.echo(text, file=stream)
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)  # the interpreter flushes once more at its end
        os.close(nowhere)
