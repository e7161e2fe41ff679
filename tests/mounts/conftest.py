"""Places on real mounts. Skipped, with the reason, where a part of one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounts.fuse import build
from tests.mounts.places import BoundPlace, BreakingPlace, FusePlace, QuotaPlace, skip_without_root


@pytest.fixture(scope="session")
def passthrough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the sick file system."""
    skip_without_root()
    return build(tmp_path_factory.mktemp("passthrough"))


@pytest.fixture
def sick(tmp_path: Path, passthrough: Path) -> Iterator[FusePlace]:
    """Persist is a FUSE mount, well at first."""
    with FusePlace(tmp_path, passthrough) as place:
        place.mount()
        yield place


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[BoundPlace]:
    """Persist is a mount that can be taken away."""
    with BoundPlace(tmp_path) as place:
        place.mount()
        yield place


@pytest.fixture
def quota(tmp_path: Path) -> Iterator[QuotaPlace]:
    """Persist is a btrfs subvolume, without a limit at first."""
    with QuotaPlace(tmp_path) as place:
        place.mount()
        yield place


@pytest.fixture
def breaking(tmp_path: Path) -> Iterator[BreakingPlace]:
    """Persist is an ext4 that can break."""
    with BreakingPlace(tmp_path) as place:
        place.mount()
        yield place
