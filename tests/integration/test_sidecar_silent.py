"""What changes and says nothing: memory-mapped files, which give no event until they are unmapped."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

from tests.processes import Place, wait_until

_WRITER = """
import mmap, os, sys
path, size = sys.argv[1], 1 << 20
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, size)
memory = mmap.mmap(fd, size)
memory[0:5] = b"first"
print("first", flush=True)
sys.stdin.readline()
memory[0:6] = b"second"  # to a page that is dirty still: no time changes
print("second", flush=True)
sys.stdin.readline()
"""


def _mirrored(place: Place, count: int) -> bytes:
    path = place.mirror / "array.npy"
    return path.read_bytes()[:count] if path.exists() else b""


def test_sigterm_saves_what_a_mapping_wrote_since_the_last_copy(place: Place) -> None:
    place.settings = {"SIDECAR_SCAN_INTERVAL": "3600"}
    process = place.start()
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(place.home / "array.npy")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == b"first\n"
        wait_until(lambda: _mirrored(place, 5) == b"first", "the first write is safe")
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == b"second\n"
        # It is mapped still, so there was no event, and the next scan is an hour away.
        assert place.end(process) == 0
        assert _mirrored(place, 6) == b"second"
    finally:
        writer.kill()
        writer.communicate()


def test_a_notice_too_saves_what_a_mapping_wrote(place: Place) -> None:
    place.settings = {"SIDECAR_SCAN_INTERVAL": "3600"}
    path = place.home / "array.npy"
    process = place.start()
    with path.open("w+b") as file:
        os.ftruncate(file.fileno(), 8192)
        with mmap.mmap(file.fileno(), 8192) as memory:
            memory[0:3] = b"one"
            wait_until(lambda: _mirrored(place, 3) == b"one", "the first write is safe")
            memory[4096:4099] = b"two"
            process.send_signal(10)
            wait_until(lambda: Path(place.mirror / "array.npy").read_bytes()[4096:4099] == b"two", "the second is")
    assert place.end(process) == 0


def test_a_mapping_counts_on_when_somebody_else_writes_to_the_file_and_closes_it(place: Place) -> None:
    place.settings = {"SIDECAR_SCAN_INTERVAL": "3600"}
    path = place.home / "array.npy"
    process = place.start()
    with path.open("w+b") as file:
        os.ftruncate(file.fileno(), 8192)
        with mmap.mmap(file.fileno(), 8192) as memory:
            file.write(b"one")
            file.flush()
            wait_until(lambda: _mirrored(place, 3) == b"one", "the first write is safe")
            memory[4096:4099] = b"two"
            with path.open("r+b") as other:
                other.write(b"ONE")
            wait_until(lambda: _mirrored(place, 3) == b"ONE", "what the other wrote is safe")
            memory[4096:4101] = b"three"
            assert place.end(process) == 0
            assert (place.mirror / "array.npy").read_bytes()[4096:4101] == b"three"
