"""When time is short, what matters most is safe first, and what is left is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.clock import Clock
from sidecar.config import Settings
from sidecar.engine import Engine
from sidecar.errors import EXIT_DEADLINE, EXIT_SAFE
from sidecar.fsops import FileSystem


class _Watched(FileSystem):
    """Notes in which order files get their place in the mirror."""

    def __init__(self) -> None:
        self.placed: list[bytes] = []

    def rename(self, source: bytes, target: bytes, *, source_at: int, target_at: int) -> None:
        super().rename(source, target, source_at=source_at, target_at=target_at)
        if source.isdigit():  # the name of a staged content
            self.placed.append(target)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("home", "persist"):
        (tmp_path / name).mkdir()
    return Settings(home=str(tmp_path / "home"), persist=str(tmp_path / "persist"), require_mount=False)


@pytest.fixture
def fs() -> _Watched:
    return _Watched()


@pytest.fixture
def engine(settings: Settings, fs: _Watched) -> Iterator[Engine]:
    engine = Engine(fs, Clock(), settings, wake=lambda: None)
    yield engine
    engine.close()


def test_the_drain_saves_by_importance_and_not_by_name(settings: Settings, fs: _Watched, engine: Engine) -> None:
    in_order = [
        "z.ipynb",
        "y.py",
        ".git/objects/ab/xobject",
        ".git/refs/heads/wref",
        ".vprofile",
        "u.sqlite",
        "t.sqlite-wal",
        "a-large.bin",
    ]
    for name in reversed(in_order):
        path = Path(settings.home, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    with Path(settings.home, "a-large.bin").open("wb") as file:
        file.truncate(101 * 10**6)
    assert engine.drain(lambda: False) == EXIT_SAFE
    placed = [name.decode() for name in fs.placed]
    assert placed[:5] == [name.rpartition("/")[2] for name in in_order[:5]]
    assert placed[-1] == "a-large.bin"


def test_when_the_time_is_up_the_important_is_safe_and_the_rest_is_named(settings: Settings, engine: Engine) -> None:
    for number in range(300):
        Path(settings.home, f"a{number}.bin").write_text("x")
        Path(settings.home, f"z{number}.ipynb").write_text("x")
    mirror = Path(settings.persist, "Backup", "default")
    code = engine.drain(lambda: len(list(mirror.glob("*.ipynb"))) == 300)
    assert code == EXIT_DEADLINE
    saved = {path.name for path in mirror.iterdir()}
    assert {f"z{number}.ipynb" for number in range(300)} <= saved
    left = json.loads(Path(settings.persist, ".jupyterhub-sidecar", "default", "left-behind.json").read_text())
    assert (left["schema"], left["count"]) == (1, 600 - len(saved))
    assert {item["path"] for item in left["files"]} | saved == {p.name for p in Path(settings.home).iterdir()} - {
        "Save"
    }
    assert all(item["reason"] for item in left["files"])
