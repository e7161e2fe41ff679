"""The supervisor with engines that do as a test says: each life is a process of its own, ended by real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import CHECKOUT, wait_until

_PROGRAM = """
import os, sys, time
from sidecar.signals import Signals
from sidecar.supervisor import EXIT_AGAIN, Supervisor

def engine(line, is_first):
    with open("lives", "a") as lives:
        lives.write(f"{os.getpid()}\\n")
    life = len(open("lives").readlines())
    line.send("grace", 3.0)
    exec(sys.argv[1])

signals = Signals()
signals.install()
os._exit(Supervisor(signals, engine).run())
"""


class _Life:
    """One supervisor whose engines all do ``what``, which knows ``line`` and the number ``life``."""

    def __init__(self, where: Path, what: str) -> None:
        self._where = where
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, what], cwd=where, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
        )

    @property
    def engines(self) -> list[int]:
        path = self._where / "lives"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def until_engine(self, number: int, deadline_s: float = 20.0) -> int:
        wait_until(lambda: len(self.engines) >= number, f"engine {number} lives", deadline_s)
        return self.engines[number - 1]

    def end(self) -> tuple[int, float]:
        """Exit code after SIGTERM, and how many seconds it took."""
        started = time.monotonic()
        self.process.terminate()
        return self.process.wait(20), time.monotonic() - started


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[list[_Life]]:
    begun: list[_Life] = []
    yield begun
    for life in begun:
        for pid in [life.process.pid, *life.engines]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        life.process.wait()


def _begin(lives: list[_Life], where: Path, what: str) -> _Life:
    lives.append(_Life(where, what))
    return lives[-1]


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5])
def test_a_first_engine_that_ends_by_itself_is_the_end_with_its_code(
    lives: list[_Life], tmp_path: Path, code: int
) -> None:
    life = _begin(lives, tmp_path, f"os._exit({code})")
    assert life.process.wait(20) == code
    assert len(life.engines) == 1


def test_an_engine_that_asks_for_it_is_started_again(lives: list[_Life], tmp_path: Path) -> None:
    life = _begin(lives, tmp_path, "os._exit(EXIT_AGAIN if life < 3 else 3)")
    assert life.process.wait(20) == 3
    assert len(life.engines) == 3


def test_a_defect_of_an_engine_that_stood_is_no_end_and_of_one_that_never_did_it_is(
    lives: list[_Life], tmp_path: Path
) -> None:
    life = _begin(lives, tmp_path, "line.send('stands') if life == 1 else None; time.sleep(0.3); os._exit(1)")
    assert life.process.wait(20) == 1
    assert len(life.engines) == 2


def test_a_killed_engine_is_followed_at_once_and_after_more_kills_later(lives: list[_Life], tmp_path: Path) -> None:
    life = _begin(lives, tmp_path, "time.sleep(600)")
    began = time.monotonic()
    os.kill(life.until_engine(1), signal.SIGKILL)
    os.kill(life.until_engine(2, 1.0), signal.SIGKILL)
    first_s = time.monotonic() - began
    life.until_engine(3)
    assert time.monotonic() - began > first_s + 0.9, "a crash must not be repeated without a pause"


def test_an_engine_that_asks_to_be_replaced_is_killed_and_followed(lives: list[_Life], tmp_path: Path) -> None:
    life = _begin(lives, tmp_path, "line.send('replace') if life == 1 else None; time.sleep(600)")
    first = life.until_engine(1)
    life.until_engine(2)
    assert not Path(f"/proc/{first}").exists()


def test_an_engine_that_does_not_end_is_left_behind_in_time_and_its_word_is_the_exit_code(
    lives: list[_Life], tmp_path: Path
) -> None:
    life = _begin(lives, tmp_path, "line.send('code', 4); time.sleep(600)")
    engine = life.until_engine(1)
    time.sleep(0.2)  # for its words to arrive
    code, took_s = life.end()
    assert code == 4
    assert 2.0 < took_s < 3.0
    assert Path(f"/proc/{engine}").exists(), "it still has to say what was left behind"


def test_without_a_word_of_the_engine_the_deadline_is_5(lives: list[_Life], tmp_path: Path) -> None:
    life = _begin(lives, tmp_path, "time.sleep(600)")
    life.until_engine(1)
    time.sleep(0.2)
    assert life.end()[0] == 5


def test_an_engine_hears_what_its_supervisor_is_told(lives: list[_Life], tmp_path: Path) -> None:
    what = """
import select
select.select([line.reader], [], [])
word, ended, noticed, cut = line.receive()[0]
os._exit(3 if (word, noticed, cut) == ("told", "-", "-") and 0 <= time.monotonic() - float(ended) < 2 else 1)
"""
    life = _begin(lives, tmp_path, what)
    life.until_engine(1)
    time.sleep(0.2)
    assert life.end()[0] == 3


def test_a_probe_of_a_directory_tells_its_room_and_of_nothing_its_errno(lives: list[_Life], tmp_path: Path) -> None:
    what = """
import select
from sidecar.line import encoded
line.send("probe", "there", encoded("."))
line.send("probe", "gone", encoded("gone"))
heard = []
while len(heard) < 2:
    select.select([line.reader], [], [])
    heard += line.receive()
there, gone = sorted(heard, key=lambda words: words[1], reverse=True)
os._exit(3 if there[:3] == ["probed", "there", "0"] and int(there[3]) > 0 and gone[1:] == ["gone", "2", "0"] else 1)
"""
    assert _begin(lives, tmp_path, what).process.wait(20) == 3
