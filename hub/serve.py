"""The process of the hub on one machine: JupyterHub, two seconds sooner."""

from __future__ import annotations

import sys


def main() -> None:
    """JupyterHub runs, with the command line of ``jupyterhub``."""
    # jsonschema takes this package for the formats "iri" and "iri-reference" if it is there, and it compiles a grammar
    # while it is imported: a third of the hub's start. No event of JupyterHub has such a field. None makes the import
    # fail, which jsonschema expects.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # the documented way to block an import
    from jupyterhub.app import main as jupyterhub  # type: ignore[import-untyped]

    jupyterhub()


if __name__ == "__main__":
    main()
