"""What a framework is, told by its files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpu_checks import wheels


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cuda = None\n", {"cuda": None}),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", {"cuda": "12.8", "hip": None}),
        ("a = b = 1\n", {"a": 1}),
        ("a: int\n", {}),
        ("a = os.environ['x']\nb = 2\n", {"b": 2}),
        ("info = collections.OrderedDict([('is_cuda_build', True)])\n", {"info": {"is_cuda_build": True}}),
        ("a = f(x)\nb = g([1, 2])\nc = h()\n", {}),
        ("def broken(:\n", {}),
        ("\0", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_constants_are_read_and_nothing_is_run(tmp_path: Path, text: str, found: dict[str, object]) -> None:
    path = tmp_path / "version.py"
    path.write_text(text)
    assert wheels.assignments(str(path)) == found
    assert wheels.assignments(str(tmp_path / "missing.py")) == {}


def test_a_directory_with_the_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "torch").mkdir()
    assert wheels.package_directory("torch") is None
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    assert wheels.package_directory("torch") == str(tmp_path / "torch")


@pytest.mark.parametrize(
    ("version", "build", "cuda"),
    [
        ("__version__ = '2.9.1'\ncuda = '12.8'\nhip = None\n", "cuda", "12.8"),
        ("__version__ = '2.9.1'\ncuda = None\nhip = None\n", "cpu", ""),
        ("__version__ = '2.9.1'\ncuda = None\nhip = '6.4'\n", "rocm", ""),
        ("__version__ = '2.9.1'\n", "", ""),
        ("", "", ""),
    ],
)
def test_torchs_build_is_in_its_version_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, build: str, cuda: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "torch" / "version.py").write_text(version)
    wheel = wheels.torch_wheel()
    assert (wheel.installed, wheel.build, wheel.cuda) == (True, build, cuda)
