"""No warning: after SIGKILL at any moment nothing is torn, nothing old is lost, and nothing is deleted by it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import Place, tree, wait_until

_LOSS_S = 3.0

# Writes a new file every 100 ms and rewrites another in place; every content carries its time and its own checksum.
_WRITER = """
import hashlib, sys, time
from pathlib import Path
home = Path(sys.argv[1])
def content(number):
    body = (f"{number} {time.time()}\\n" * 200).encode()
    return hashlib.sha256(body).hexdigest().encode() + b"\\n" + body
number = 0
while True:
    (home / f"new-{number:05d}.txt").write_bytes(content(number))
    (home / "rewritten.txt").write_bytes(content(number))
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.1)
"""


def _verified(path: Path) -> tuple[int, float]:
    """The number and the time in a file of the writer; fails where the file is torn."""
    digest, _, body = path.read_bytes().partition(b"\n")
    assert hashlib.sha256(body).hexdigest().encode() == digest, f"{path.name} is torn"
    number, at = body.split(b"\n", 1)[0].split()
    return int(number), float(at)


def test_after_a_kill_at_most_three_seconds_are_missing_and_nothing_is_torn(place: Place) -> None:
    sidecar = place.start()
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(place.home)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    lines = [writer.stdout.readline() for _ in range(50)]
    os.kill(sidecar.pid, signal.SIGKILL)
    killed_at = time.time()
    writer.kill()
    lines += writer.stdout.readlines()
    writer.wait()
    writer.stdout.close()
    sidecar.wait()
    written = {int(number): float(at) for number, at in (line.split() for line in lines if line.endswith("\n"))}

    place.new_home()
    sidecar = place.start()
    back = {_verified(path)[0] for path in place.home.glob("new-*.txt")}
    missing = [number for number, at in written.items() if number not in back and at < killed_at - _LOSS_S]
    assert not missing
    assert _verified(place.home / "rewritten.txt")[1] > killed_at - _LOSS_S - 0.1
    assert place.end(sidecar) == 0


@pytest.mark.parametrize(
    "delay_s", [0.05, pytest.param(0.0, marks=pytest.mark.slow), pytest.param(0.2, marks=pytest.mark.slow)]
)
def test_a_restore_that_is_killed_half_way_deletes_nothing(place: Place, delay_s: float) -> None:
    for number in range(1500):
        (place.home / f"f{number:04d}").write_bytes(b"%d" % number * 50)
    assert place.run("backup").returncode == 0
    before = tree(place.mirror)
    place.new_home()
    sidecar = place.spawn(place.command("run"))
    wait_until(lambda: sum(1 for _ in place.home.iterdir()) > 20, "the restore has begun")
    time.sleep(delay_s)  # another moment of the restore each time
    place.kill(sidecar)
    assert tree(place.mirror) == before
    for path in place.home.glob("f*"):
        assert path.read_bytes() == b"%d" % int(path.name[1:]) * 50, "a stump under a file's name"
    sidecar = place.start()
    place.flush()
    assert place.end(sidecar) == 0
    assert tree(place.mirror) == before
    assert len(list(place.home.glob("f*"))) == 1500


def test_sigterm_in_the_middle_of_a_restore_deletes_nothing_and_the_next_start_goes_on(place: Place) -> None:
    for number in range(1500):
        (place.home / f"f{number:04d}").write_bytes(b"%d" % number * 50)
    assert place.run("backup").returncode == 0
    before = tree(place.mirror)
    place.new_home()
    sidecar = place.spawn(place.command("run"))
    wait_until(lambda: sum(1 for _ in place.home.iterdir()) > 20, "the restore has begun")
    assert place.end(sidecar) == 0
    assert tree(place.mirror) == before
    sidecar = place.start()
    assert place.end(sidecar) == 0
    assert tree(place.mirror) == before
    assert len(list(place.home.glob("f*"))) == 1500


# Rewrites a file in place, block by block, as fast as it can; every block carries the number of its generation.
_REWRITER = """
import os, sys, time
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o644)
generation = 0
while True:
    generation += 1
    for block in range(512):
        os.pwrite(fd, b"%08d" % generation * 512, block * 4096)
    if generation % 5 == 0:
        time.sleep(0.05)
"""


def _check_a_state(content: bytes) -> None:
    """The file once was so: a generation from the front on, and behind it at most the one before."""
    generations = [int(content[at : at + 8]) for at in range(0, len(content), 4096)]
    assert generations == sorted(generations, reverse=True), "newer blocks behind older ones: a mixture"
    assert not generations or generations[0] - generations[-1] <= 1, "a mixture of more than two generations"


def test_a_file_rewritten_in_place_all_the_time_is_never_a_mixture(place: Place) -> None:
    place.settings = {"SIDECAR_QUIET": "0.001", "SIDECAR_MAX_DELAY": "0.002"}
    path = place.home / "busy.bin"
    sidecar = place.start()
    writer = subprocess.Popen([sys.executable, "-c", _REWRITER, str(path)])
    try:
        end_at = time.monotonic() + 3
        while time.monotonic() < end_at:
            copy = place.mirror / "busy.bin"
            if copy.exists():
                _check_a_state(copy.read_bytes())
    finally:
        writer.kill()
        writer.wait()
    place.flush()
    assert place.end(sidecar) == 0
    assert (place.mirror / "busy.bin").read_bytes() == path.read_bytes()
    for version in (place.persist / ".jupyterhub-sidecar" / "default" / "versions" / "busy.bin").glob("*"):
        _check_a_state(version.read_bytes())


_PROMISE_S = 3.0
_LONG_EVERY = 20
"""So often a sidecar lives longer than the promise, which can be checked then."""


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


_EMPTY = _digest(b"")


def _content(path: Path) -> bytes:
    return _digest(path.read_bytes())


class _Shadow:
    """Everything that was ever written to each path, and what the user left there last; contents by their digest."""

    def __init__(self, home: Path, rng: random.Random) -> None:
        self.home, self.rng = home, rng
        self.ever: dict[str, set[bytes]] = {}
        self.now: dict[str, bytes] = {}
        self.since: dict[str, float] = {}
        """When each path got what it has now, in monotonic seconds."""
        self.count = 0

    def act(self) -> None:
        """One thing a user does."""
        choice = self.rng.random()
        names = sorted(self.now)
        if choice < 0.6 or len(names) < 8:
            name = f"d{self.rng.randrange(4)}/f{self.rng.randrange(40)}"
            self._write(name)
        elif choice < 0.78:
            (self.home / (name := self.rng.choice(names))).unlink()
            del self.now[name]
        elif choice < 0.96:
            source, target = self.rng.choice(names), f"d{self.rng.randrange(4)}/moved{self.rng.randrange(10)}"
            (self.home / target).parent.mkdir(exist_ok=True)
            (self.home / source).rename(self.home / target)
            self._has_moved(source, target)
        else:
            self._move_directory(self.rng.choice(names).partition("/")[0], f"d{self.rng.randrange(4)}")

    def _move_directory(self, source: str, target: str) -> None:
        if (self.home / target).exists():
            return
        (self.home / source).rename(self.home / target)
        for name in [name for name in self.now if name.startswith(f"{source}/")]:
            self._has_moved(name, target + name[len(source) :])
        for name in [name for name in self.ever if name.startswith(f"{source}/")]:
            # What the mirror holds of it may be older than what the home has.
            self.ever.setdefault(target + name[len(source) :], set()).update(self.ever[name])

    def _has_moved(self, source: str, target: str) -> None:
        content = self.now.pop(source)
        self.now[target] = content
        self.ever.setdefault(target, set()).add(content)
        self.since[target] = time.monotonic()

    def _write(self, name: str) -> None:
        self.count += 1
        data = _written(self.count, self.rng.choice([0, 10, 5000, 300_000]))
        content = _digest(data)
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        self.ever.setdefault(name, set()).add(content)
        if self.rng.random() < 0.5:
            path.write_bytes(data)
        else:
            fresh = path.with_name(".fresh")
            fresh.write_bytes(data)
            fresh.rename(path)
            self.ever.setdefault(str(fresh.relative_to(self.home)), set()).add(content)
        self.now[name] = content
        self.since[name] = time.monotonic()


@pytest.mark.parametrize("rounds", [25, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_soak_of_kills_never_tears_a_file_and_ends_with_everything_saved(place: Place, rounds: int) -> None:
    rng = random.Random(rounds)
    shadow = _Shadow(place.home, rng)
    place.settings = {"SIDECAR_QUIET": "0.02", "SIDECAR_MAX_DELAY": "0.1"}
    for number in range(1, rounds + 1):
        is_long = number % _LONG_EVERY == 0
        sidecar = place.start() if is_long else place.spawn(place.command("run"))
        end_at = time.monotonic() + (_PROMISE_S + 0.5 if is_long else rng.uniform(0.1, 0.8))
        while time.monotonic() < end_at:
            shadow.act()
            time.sleep(rng.uniform(0, 0.02))  # the pace of the writer
        place.kill(sidecar)
        killed_at = time.monotonic()
        _check_whole(place, shadow, number)
        if is_long:
            _check_versions(place, shadow)
            _check_nothing_older_is_missing(place, shadow, killed_at - _PROMISE_S)
    sidecar = place.start()
    while place.flush()["brake"]:
        place.flush(accept_deletions=True)
    assert place.end(sidecar) == 0
    saved = {str(p.relative_to(place.mirror)): _content(p) for p in place.mirror.rglob("*") if p.is_file()}
    assert saved == shadow.now
    place.new_home()
    sidecar = place.start()
    assert {str(p.relative_to(place.home)): _content(p) for p in place.home.glob("d*/*")} == shadow.now
    assert place.end(sidecar) == 0


def _check_nothing_older_is_missing(place: Place, shadow: _Shadow, before_s: float) -> None:
    """What had not changed since ``before_s`` is in the mirror."""
    for name, content in shadow.now.items():
        if shadow.since[name] < before_s:
            path = place.mirror / name
            assert path.exists(), f"{name} is lost, though it was there for {_PROMISE_S} s"
            assert _content(path) == content, f"{name} is not what it was for {_PROMISE_S} s"


def _written(number: int, size: int) -> bytes:
    """What the user writes as number ``number``; less is the beginning of more."""
    return b"%d:" % number + random.Random(number).randbytes(300_000)[:size]


def _is_half_of_a_write(path: Path) -> bool:
    """Whether ``path`` is what a reader sees in the middle of one large write: the kernel does it page by page.

    It is a state that the file had. What we tear ourselves would be caught by any other size, and by tests/faults.
    """
    data = path.read_bytes()
    number, _, rest = data.partition(b":")
    return len(data) % 4096 == 0 and number.isdigit() and data == _written(int(number), len(rest))


def _check_whole(place: Place, shadow: _Shadow, number: int) -> None:
    """Every file of the mirror is one whole content that its path once had."""
    for path in place.mirror.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(place.mirror))
            # A file rewritten in place is empty for a moment, and that is one of its contents.
            is_whole = _content(path) in {_EMPTY, *shadow.ever.get(name, set())}
            assert is_whole or _is_half_of_a_write(path), f"{name} is torn in round {number}"


def _check_versions(place: Place, shadow: _Shadow) -> None:
    versions = place.persist / ".jupyterhub-sidecar" / "default" / "versions"
    for path in versions.rglob("*Z_*Z*"):
        if path.is_file():
            name = str(path.parent.relative_to(versions))
            is_whole = _content(path) in {_EMPTY, *shadow.ever.get(name, set())}
            assert is_whole or _is_half_of_a_write(path), f"an earlier {name} is torn"
