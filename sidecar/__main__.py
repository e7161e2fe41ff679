"""The command line's first step and last: signals before imports, because process 1 has no default handlers."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

from sidecar.line import Supervised
from sidecar.signals import Signals


def main() -> None:
    """Run the command line; the process exits with one of the codes in ``sidecar --help``."""
    if sys.argv[1:2] != ["run"]:
        from sidecar.cli import cli

        cli()
        return
    # Before the slow imports: a SIGTERM in the first milliseconds is an end, not a kill.
    signals = Signals()
    signals.install()
    from sidecar.supervisor import Supervisor

    _leave(Supervisor(signals, lambda line, is_first: _engine(Supervised(signals, line, is_first=is_first))).run())


def _engine(supervised: Supervised) -> NoReturn:
    try:
        from sidecar.cli import cli

        cli(obj=supervised)
    except SystemExit as end:
        _leave(end.code if isinstance(end.code, int) else 1)
    except Exception:  # noqa: BLE001  the outermost place
        sys.excepthook(*sys.exc_info())
        _leave(1)
    _leave(0)


def _leave(code: int) -> NoReturn:
    """The process is gone. The interpreter would wait for its threads first, and one may hang in a write to Persist."""
    if "logging" in sys.modules:
        sys.modules["logging"].shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
