"""The tools that one would use instead: how each is called, and what it promises."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.commands import Ran, Refused, run_timed
from tests.bench.figures import Series
from tests.bench.trees import IncompleteCopyError, Tree, check_copy


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One way to call one tool. ``{home}`` and ``{copy}`` in the words stand for what is copied, and where to."""

    name: str
    words: tuple[str, ...]
    durable: bool
    """Whether the copy is on the disk when the tool ends, and not only in the kernel's memory."""
    plain: bool = True
    """Whether the copy is a tree of plain files."""
    prepare: tuple[str, ...] = ()
    """What has to be called once, before, and is not timed."""
    environ: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    """What the tool says of itself; None where it is not installed."""

    @property
    def command(self) -> str:
        """As one would type it."""
        return " ".join(self.words)

    def ready(self, copy: Path) -> None:
        """``copy`` can be given to ``run``. A tool that fails here fails there too."""
        if self.prepare and self.version is not None:
            run_timed(_filled(self.prepare, copy, copy), self.environ)

    def run(self, home: Path, copy: Path) -> Ran | Refused:
        """``copy`` has what ``home`` has, and how long that took."""
        if self.version is None:
            return Refused(f"{self.words[0]} is not installed")
        return run_timed(_filled(self.words, home, copy), self.environ)

    def measure(self, series: Series, home: Path, copy: Path) -> bool:
        """One more round in ``series``, or the reason why there is none."""
        if series.reason is not None:
            return False
        outcome = self.run(home, copy)
        if isinstance(outcome, Refused):
            series.reason = outcome.reason
            return False
        series.seconds.append(outcome.seconds)
        series.peak_rss_bytes.append(outcome.peak_rss_bytes)
        return True

    def measure_tree(self, series: Series, tree: Tree, copy: Path, numbers: Sequence[int] | None = None) -> None:
        """``measure``, and the files ``numbers`` (None: all) are really in the copy."""
        if self.measure(series, tree.root, copy) and self.plain:
            try:
                check_copy(tree, copy, numbers)
            except IncompleteCopyError as error:
                series.reason = f"{self.words[0]} did not copy everything: {error}"


def _filled(words: Sequence[str], home: Path, copy: Path) -> list[str]:
    return [word.replace("{home}", str(home)).replace("{copy}", str(copy)) for word in words]


@dataclass(frozen=True, kw_only=True)
class Peers:
    """All of them, installed or not."""

    cp: Peer
    cp_file: Peer
    cp_file_fsync: Peer
    rsync: Peer
    rsync_fsync: Peer
    rclone: Peer
    restic: Peer

    @property
    def backups(self) -> tuple[Peer, ...]:
        """Those that bring a copy up to date."""
        return (self.rsync, self.rclone, self.restic)

    @property
    def copies(self) -> tuple[Peer, ...]:
        """Those that make a first copy of a tree."""
        return (self.cp, self.rsync, self.rsync_fsync, self.rclone, self.restic)

    @property
    def everyone(self) -> tuple[Peer, ...]:
        """Each once."""
        return (*self.copies, self.cp_file, self.cp_file_fsync)


def find_peers(path: str | None = None) -> Peers:
    """The peers that are installed in the directories of ``path`` (None: PATH)."""
    cp, rsync = _version("cp", "--version", path), _version("rsync", "--version", path)
    copy_and_sync = ("sh", "-c", 'cp -- "$0" "$1" && sync -- "$1"', "{home}", "{copy}")
    return Peers(
        cp=Peer(name="cp", words=("cp", "-a", "{home}", "{copy}"), durable=False, version=cp),
        cp_file=Peer(name="cp_file", words=("cp", "{home}", "{copy}"), durable=False, version=cp),
        cp_file_fsync=Peer(name="cp_file_fsync", words=copy_and_sync, durable=True, version=cp),
        rsync=Peer(name="rsync", words=("rsync", "-a", "--delete", "{home}/", "{copy}"), durable=False, version=rsync),
        rsync_fsync=Peer(
            name="rsync_fsync", words=("rsync", "-a", "--fsync", "{home}/", "{copy}"), durable=True, version=rsync
        ),
        rclone=Peer(
            name="rclone",
            words=("rclone", "sync", "{home}", "{copy}", "--transfers", "8", "--checkers", "8"),
            durable=False,
            environ={"RCLONE_CONFIG": os.devnull},
            version=_version("rclone", "version", path),
        ),
        restic=_restic(path),
    )


def _restic(path: str | None) -> Peer:
    """With what makes its version faster: no look at the whole tree beforehand, no compression."""
    version = _version("restic", "version", path)
    offered = _said(["restic", "backup", "--help"]) if version is not None else ""
    speed = ["--no-scan"] if "--no-scan" in offered else []
    speed += ["--compression", "off"] if "--compression" in offered else []
    place = ("--quiet", "--repo", "{copy}", "--cache-dir", "{copy}.cache")
    return Peer(
        name="restic",
        words=("restic", "backup", *place, *speed, "{home}"),
        durable=True,
        plain=False,
        prepare=("restic", "init", *place),
        environ={"RESTIC_PASSWORD": "measured"},
        version=version,
    )


def _version(program: str, question: str, path: str | None) -> str | None:
    found = shutil.which(program, path=path)
    return None if found is None else _said([found, question]).partition("\n")[0].strip()


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
