"""Somebody takes the backup away: on one machine its user can. Nothing may then be called safe that is not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.server import ask
from tests.processes import Place, tree


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


def test_somebody_elses_persist_in_its_place_is_foreign_gets_nothing_and_ends_no_pod(
    place: Place, work: dict[str, str]
) -> None:
    place.settings["SIDECAR_OWNER"] = "ada"
    ours, theirs = place.top / "ours", place.top / "theirs"
    (theirs / ".jupyterhub-sidecar").mkdir(parents=True)
    (theirs / ".jupyterhub-sidecar" / "format.json").write_text(json.dumps({"format": 1, "owner": "grace"}))
    before = tree(theirs)
    process = place.start("--grace", "3")
    place.flush()
    place.persist.rename(ours)
    theirs.rename(place.persist)
    with pytest.raises(TimeoutError):
        ask(place.socket, {"op": "flush"}, 3.0)
    status = place.status()
    assert (status["state"], status["persist"]["state"]) == ("degraded", "foreign")
    place.persist.rename(theirs)
    ours.rename(place.persist)
    assert place.flush()["complete"]
    assert place.status()["persist"]["state"] == "ok"
    place.persist.rename(ours)
    theirs.rename(place.persist)
    assert place.end(process) == 4
    assert tree(place.persist) == before
    assert "Persist belongs to 'grace' and not to 'ada'" in place.log.read_text()
    assert contents(ours / "Backup" / "default") == work
