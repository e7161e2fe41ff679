"""Images built once for all tests. Skipped, with the reason, where podman or a part of it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pods.engine import Podman
from tests.pods.pod import Volumes


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """With the base image and the sidecar's."""
    podman = Podman(tmp_path_factory.mktemp("podman"))
    try:
        podman.make_base()
        podman.build_sidecar()
        yield podman
    finally:
        podman.close()


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    """A claim in which nobody has been."""
    return Volumes(tmp_path)
