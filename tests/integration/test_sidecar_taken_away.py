"""Somebody takes the backup away: on one machine its user can. Nothing may then be called safe that is not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import Place


def remove_backup(place: Place) -> None:
    shutil.rmtree(place.persist / "Backup")


def rename_backup(place: Place) -> None:
    (place.persist / "Backup").rename(place.persist / "Old")


def remove_mirror(place: Place) -> None:
    shutil.rmtree(place.mirror)


def remove_everything(place: Place) -> None:
    for path in place.persist.iterdir():
        shutil.rmtree(path)


def remove_state(place: Place) -> None:
    shutil.rmtree(place.persist / ".jupyterhub-sidecar")


def remove_one_file(place: Place) -> None:
    (place.mirror / "work" / "a.txt").unlink()


def cut_one_file(place: Place) -> None:
    (place.mirror / "work" / "a.txt").write_text("")


THEFTS: list[Callable[[Place], None]] = [
    remove_backup,
    rename_backup,
    remove_mirror,
    remove_everything,
    remove_state,
    remove_one_file,
    cut_one_file,
]


def contents(top: Path) -> dict[str, str]:
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


@pytest.fixture
def work(place: Place) -> dict[str, str]:
    (place.home / "work").mkdir()
    for name in ("a", "b", "c"):
        (place.home / "work" / f"{name}.txt").write_text(f"{name} of the user")
    return contents(place.home)


@pytest.mark.parametrize("take_away", THEFTS)
def test_what_was_taken_away_while_it_ran_is_saved_again_before_the_end_claims_success(
    place: Place, work: dict[str, str], take_away: Callable[[Place], None]
) -> None:
    process = place.start()
    place.flush()
    take_away(place)
    assert place.end(process) == 0
    assert contents(place.mirror) == work


@pytest.mark.parametrize("take_away", THEFTS)
def test_what_was_taken_away_while_it_was_down_is_saved_again(
    place: Place, work: dict[str, str], take_away: Callable[[Place], None]
) -> None:
    process = place.start()
    place.flush()
    place.kill(process)
    take_away(place)
    assert place.end(place.start()) == 0
    assert contents(place.mirror) == work
