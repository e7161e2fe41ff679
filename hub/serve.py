"""The process of the hub on one machine: JupyterHub, two seconds sooner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

from hub.launch import hub_mark
from hub.plan import LOCAL_GRACE_S
from hub.processes import end_all, marked, marked_below, with_descendants


def main() -> None:
    """JupyterHub runs, with the command line of ``jupyterhub``. After its end nothing of it is left."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        # A terminal that is closed means what Ctrl-C in it means.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with contextlib.suppress(KeyboardInterrupt):
        _run_jupyterhub()
    asyncio.run(_end_strays(os.environ["HUB_DATA"]))


def _run_jupyterhub() -> None:
    # jsonschema takes this package for the formats "iri" and "iri-reference" if it is there, and it compiles a grammar
    # while it is imported: a third of the hub's start. No event of JupyterHub has such a field. None makes the import
    # fail, which jsonschema expects.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # the documented way to block an import
    from jupyterhub import app  # type: ignore[import-untyped]
    from sqlalchemy.exc import SQLAlchemyError

    class JupyterHub(app.JupyterHub):  # type: ignore[misc]  # its name is the logger's
        async def cleanup(self) -> None:
            """Nothing runs any more. A full disk must not keep the hub from ending: it would wait for ever."""
            try:
                await super().cleanup()
            except SQLAlchemyError as error:
                self.log.error("the hub's database could not be written at the end: %s", error)  # noqa: TRY400  the trace tells nothing

    JupyterHub.launch_instance()


async def _end_strays(data: str) -> None:
    """Ends what JupyterHub leaves: its proxy, when Ctrl-C came while it started, and servers that it does not know of,
    whose start was cut short when an earlier hub was killed."""
    ours = [process for process in marked(hub_mark(data)) if process.pid != os.getpid()]
    await end_all(ours, patience_s=1.0)
    await end_all(with_descendants(marked_below(data, "notebook")), patience_s=2.0)
    await end_all(marked_below(data, "storage"), patience_s=LOCAL_GRACE_S)


if __name__ == "__main__":
    main()
