"""Fakes of PyTorch and TensorFlow as they are installed: packages with the files that tell what they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


def install_torch(site: Path, *, cuda: str | None = "12.4", needs: Sequence[str] = ()) -> None:
    """``site``, on PYTHONPATH, has a torch that was built for this CUDA, or for the CPU."""
    package = site / "torch"
    package.mkdir(parents=True)
    shutil.copyfile(HERE / "fake_torch.py", package / "__init__.py")
    local = f"+cu{cuda.replace('.', '')}" if cuda else "+cpu"
    (package / "version.py").write_text(
        "from typing import Optional\n\n"
        f"__version__ = '2.13.0{local}'\ndebug = False\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
    )
    _metadata(site, "torch", f"2.13.0{local}", needs)


def install_tensorflow(
    site: Path, *, cuda: str | None = "12.5.1", distribution: str = "tensorflow", needs: Sequence[str] = ()
) -> None:
    """The same for TensorFlow, brought by this distribution."""
    package = site / "tensorflow"
    platform = package / "python" / "platform"
    platform.mkdir(parents=True)
    shutil.copyfile(HERE / "fake_tensorflow.py", package / "__init__.py")
    said: list[tuple[str, object]] = [("is_cuda_build", bool(cuda)), ("is_rocm_build", False)]
    if cuda:
        said += [("cuda_version", cuda), ("cuda_compute_capabilities", ["sm_80", "compute_90"])]
    (platform / "build_info.py").write_text(
        f"import collections\n\nbuild_info = collections.OrderedDict({said!r})\n", encoding="utf-8"
    )
    _metadata(site, distribution, "2.21.0", needs)


def _metadata(site: Path, name: str, version: str, needs: Sequence[str]) -> None:
    directory = site / f"{name.replace('-', '_')}-{version}.dist-info"
    os.mkdir(directory)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    (directory / "METADATA").write_text("\n".join(lines) + "\n")
