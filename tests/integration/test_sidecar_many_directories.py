"""More directories than descriptors: all in them is saved, replaced and deleted in one batch."""

from __future__ import annotations

import shutil

import pytest

from tests.processes import Place

_LIMIT = 1024
_DIRECTORIES = 1200


@pytest.fixture
def narrow(place: Place) -> Place:
    """A place whose sidecars may have few descriptors."""
    place.prefix = ["sh", "-c", f'ulimit -n {_LIMIT} && exec "$@"', "sh"]
    return place


def test_files_each_in_a_directory_of_its_own_are_saved_replaced_and_deleted(narrow: Place) -> None:
    for number in range(_DIRECTORIES):
        (narrow.home / f"d{number}").mkdir()
        (narrow.home / f"d{number}" / "file.txt").write_text("old")
        (narrow.home / f"stays{number}").touch()
    assert narrow.run("backup").returncode == 0
    for number in range(_DIRECTORIES):
        (narrow.home / f"d{number}" / "file.txt").write_text("and new")
    assert narrow.run("backup").returncode == 0
    assert all((narrow.mirror / f"d{number}" / "file.txt").read_text() == "and new" for number in range(_DIRECTORIES))
    for number in range(_DIRECTORIES):
        shutil.rmtree(narrow.home / f"d{number}")
    assert narrow.run("backup").returncode == 0
    assert sorted(path.name for path in narrow.mirror.glob("[ds]*")) == sorted(
        f"stays{number}" for number in range(_DIRECTORIES)
    )
    versions = narrow.persist / ".jupyterhub-sidecar" / "default" / "versions"
    assert len(list(versions.glob("d*/file.txt/*"))) == 2 * _DIRECTORIES


def test_files_each_in_a_directory_of_its_own_all_come_back(narrow: Place) -> None:
    for number in range(_DIRECTORIES):
        (narrow.home / f"d{number}").mkdir()
        (narrow.home / f"d{number}" / "file.txt").write_text(f"{number}")
    assert narrow.run("backup").returncode == 0
    shutil.rmtree(narrow.home)
    narrow.home.mkdir()
    process = narrow.start()
    assert sorted((path.parent.name, path.read_text()) for path in narrow.home.glob("d*/file.txt")) == sorted(
        (f"d{number}", f"{number}") for number in range(_DIRECTORIES)
    )
    assert narrow.end(process) == 0
