"""A single backup, where no sidecar runs."""

from __future__ import annotations

from sidecar.backup.persist import check_mounted
from sidecar.backup.tenancy import Tenancy
from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.fsops import FileSystem
from sidecar.limits import raise_descriptor_limit
from sidecar.server import only_writer

_PATIENCE_S = 30.0
"""For so long a Persist that does not work is tried."""


def back_up_once(settings: Settings, fs: FileSystem, clock: Clock, *, accept_deletions: bool) -> int:
    """Everything in the home is safe, and the exit code says whether it is; without a running sidecar.

    Raises ``PersistError``, ``WriterActive`` among them, and ``UsageError``.
    """
    check_mounted(settings)
    raise_descriptor_limit()
    with only_writer(settings.socket_path):
        tenancy = Tenancy(fs, clock, settings.pod_uid)
        engine = Engine(fs, clock, settings, wake=lambda: None, tenancy=tenancy)
        try:
            engine.flush(
                catch_up_s=0.0,
                out_of_time=lambda: engine.trouble.lasted_s > _PATIENCE_S,
                accept_deletions=accept_deletions,
            )
            return engine.close_books(late=False)
        finally:
            engine.close()
            tenancy.release()
