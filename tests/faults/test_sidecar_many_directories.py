"""A batch in more directories than may be open at once: what is safe is as safe as in a batch of one directory."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.backup import journal
from sidecar.errors import EXIT_SAFE
from tests.faults.disk import WORST, Disk, by_chance, contents
from tests.faults.faulty import MODES
from tests.faults.recording import Record, RecordingFileSystem
from tests.faults.scene import STATE, Backup, Scene, Story, become, read, save

_DIRECTORIES = 30
_FOR_US = 110
_STORY = Story(
    {
        **{f"d{n}/replaced": b"old %d" % n for n in range(_DIRECTORIES)},
        **{f"d{n}/deleted": b"gone %d" % n for n in range(0, _DIRECTORIES, 2)},
        **{f"away{n}/deleted": b"gone %d" % n for n in range(_DIRECTORIES // 3)},
    },
    {
        **{f"d{n}/replaced": b"newer %d" % n for n in range(_DIRECTORIES)},
        **{f"new{n}/deep/new": b"new %d" % n for n in range(_DIRECTORIES)},
    },
)


@pytest.fixture
def _few_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = len(os.listdir("/proc/self/fd"))  # of whoever runs the tests, who may have left something open
    resource.setrlimit(resource.RLIMIT_NOFILE, (others + _FOR_US, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.usefixtures("_few_descriptors")
@pytest.mark.parametrize("kind", ["as a whole", pytest.param("by file", marks=pytest.mark.slow)])
def test_after_a_power_cut_a_batch_in_many_directories_is_whole_and_what_was_called_safe_is_there(
    top: Path, kind: str
) -> None:
    scene = Scene(top / "scene", _STORY, MODES[kind])
    become(scene.home, _STORY.after)
    record = Record(scene.persist)
    disk = Disk()
    disk.hear(record.take())
    assert scene.live(save, RecordingFileSystem(record, kind=scene.kind)) == EXIT_SAFE
    for number, call in enumerate(record.take()):
        disk.hear([call])
        if number % 3:
            continue
        durable = disk.durable(STATE + "journal")
        claims = None if durable is None else journal.replay([durable])
        for fate in (*WORST.values(), by_chance(number)):
            backup = Backup(contents(disk.after_cut(fate)), _STORY)
            backup.check_whole()
            for says in (claims, backup.says):
                if says is not None:
                    backup.check_safe(says)
            backup.check_nothing_lost()
    end = Backup(contents(disk.after_cut(WORST["nothing that is not durable"])), _STORY)
    end.check_mirrors(read(scene.home))
