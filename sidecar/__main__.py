"""The command line's first step and last: signals before imports, because process 1 has no default handlers."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from sidecar.signals import Signals


def main() -> None:
    """Run the command line; the process exits with one of the codes in ``sidecar --help``."""
    signals = Signals()
    if sys.argv[1:2] != ["run"]:
        from sidecar.cli import cli

        cli(obj=signals)
        return
    # Before the slow imports: a SIGTERM in the first milliseconds is an end, not a kill.
    signals.install()
    try:
        from sidecar.cli import cli

        cli(obj=signals)
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else 1)
    except Exception:  # noqa: BLE001  the outermost place
        sys.excepthook(*sys.exc_info())
        _leave(1)


def _leave(code: int) -> NoReturn:
    """The process is gone. The interpreter would wait for its threads first, and one may hang in a write to Persist."""
    import logging

    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
