"""The command line's first step: signals before imports, because process 1 has no default handlers."""

from __future__ import annotations

import sys

from sidecar.signals import Signals


def main() -> None:
    """Run the command line; the process exits with one of the codes in ``sidecar --help``."""
    signals = Signals()
    if "run" in sys.argv[1:]:
        # Before the slow imports: a SIGTERM in the first milliseconds is an end, not a kill.
        signals.install()
    from sidecar.cli import cli

    cli(obj=signals)


if __name__ == "__main__":
    main()
