"""Runs ``gpu-check``: the console script, ``python -m gpu_checks``, and the zipapp's ``__main__`` come here."""

from __future__ import annotations

from gpu_checks.cli import main

if __name__ == "__main__":
    main()
