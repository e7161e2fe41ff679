"""A place whose Persist is a real mount of some kind, which only its sidecars see, and which goes with the test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

import pytest

from tests.mounts.fuse import PassThrough
from tests.processes import MountNamespace, Place


def skip_without_root() -> None:
    """Skips the test where nobody lets us mount."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")


class MountedPlace(Place):
    """After ``mount``: ``store`` is a tmpfs in a mount namespace of its own, and Persist comes from something in it."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self.below = self.persist
        """The directory that Persist is mounted on, as it is without the mount."""
        self.store_inside = self.store = top / "store"
        self._last = ExitStack()
        """What must be over before anybody is waited for."""

    def mount(self) -> None:
        """The store is there, and an empty directory ``user`` in it. Skips the test where nobody lets us mount."""
        skip_without_root()
        self.store.mkdir()
        namespace = MountNamespace(f"mount -t tmpfs -o size=1g none {self.store}")
        self.seen = namespace.seen
        self.store = namespace.seen(self.store)
        self.move_into(namespace, self.store / "user")
        self.persist.mkdir()

    def inside(self, *command: str | Path) -> str:
        """What ``command`` says where the mounts are. Raises ``CalledProcessError``."""
        return subprocess.run([*self.prefix, *command], check=True, capture_output=True, text=True).stdout.strip()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._last.close()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().__exit__(kind, error, trace)


class FusePlace(MountedPlace):
    """Persist is a FUSE file system that can be told to be sick."""

    def __init__(self, top: Path, program: Path) -> None:
        super().__init__(top)
        self._program = program

    def mount(self) -> None:
        super().mount()
        self.sickness = self._last.enter_context(
            PassThrough(
                self._program,
                prefix=self.prefix,
                backing=self.store_inside / "user",
                point=self.persist_inside,
                rules=self.top / "rules",
            )
        )


class BoundPlace(MountedPlace):
    """Persist is the same directory of a file system however often it is taken away and comes back, as on NFS."""

    def mount(self) -> None:
        super().mount()
        self.come_back()

    def come_back(self) -> None:
        """Persist is mounted."""
        self.inside("mount", "--bind", self.store_inside / "user", self.persist_inside)

    def take_away(self) -> None:
        """Persist is not mounted, though whoever has something open there keeps it."""
        self.inside("umount", "--lazy", self.persist_inside)


class LoopPlace(MountedPlace):
    """Persist is on a file system in a file, on a loop device that goes with its last mount."""

    def make_image(self, program: str, megabytes: int) -> None:
        """The file holds what ``program`` makes. Skips the test where there is none, or no loop device."""
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
        if not Path("/dev/loop-control").exists():
            pytest.skip("there are no loop devices here")
        image = self.store / "image"
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run([program, "-q", image], check=True, stderr=subprocess.DEVNULL)

    def mount_image(self, point: Path, options: str) -> str:
        """The name of the device that is now mounted at ``point``."""
        try:
            self.inside("mount", "-o", f"loop,{options}", self.store_inside / "image", point)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"a loop device cannot be mounted here: {error.stderr.splitlines()[0]}")
        return Path(self.inside("findmnt", "-no", "SOURCE", point)).name


class QuotaPlace(LoopPlace):
    """Persist is a btrfs subvolume with a quota: what is more is EDQUOT."""

    def mount(self) -> None:
        super().mount()
        self.make_image("mkfs.btrfs", 128)
        volume = self.store_inside / "volume"
        self.persist = self.store / "volume" / "user"
        self.persist.parent.mkdir()
        self.mount_image(volume, "rw")
        self.inside("btrfs", "quota", "enable", volume)
        self.inside("btrfs", "subvolume", "create", volume / "user")
        self.inside("mount", "--bind", volume / "user", self.persist_inside)

    def allow(self, most_bytes: int) -> None:
        """Persist takes so many bytes from now on."""
        self.inside("btrfs", "qgroup", "limit", str(most_bytes), self.store_inside / "volume" / "user")


class BreakingPlace(LoopPlace):
    """Persist is an ext4 that makes itself read-only at its first error, whatever is open on it."""

    def mount(self) -> None:
        super().mount()
        self.make_image("mkfs.ext4", 64)
        self._device = self.mount_image(self.persist_inside, "errors=remount-ro")
        self.persist = self.seen(self.persist_inside)

    def break_it(self) -> None:
        """The file system is read-only from now on."""
        Path("/sys/fs/ext4", self._device, "trigger_fs_error").write_text("an error of a test")

    def repair(self) -> None:
        """The file system is mounted anew, writable. Nobody may have anything open on it."""
        self.inside("umount", self.persist_inside)
        self._device = self.mount_image(self.persist_inside, "errors=remount-ro")
