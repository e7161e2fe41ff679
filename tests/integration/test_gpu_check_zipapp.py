"""``gpu-check.pyz``: one file that runs in any image, the same bytes each time, whatever surrounds it."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from gpu_checks import VERSION

from .fake_gpu import compiled, environment, left_behind

ROOT = Path(__file__).parents[2]
BUILD = [sys.executable, str(ROOT / "images" / "build_zipapp.py"), "--output"]
# The first and the last supported version each time, those between with the slow tests.
BETWEEN = (pytest.param(version, marks=pytest.mark.slow) for version in ("3.10", "3.11", "3.12", "3.14"))
VERSIONS = ("3.9", *BETWEEN, "3.13")


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(str(tmp_path_factory.mktemp("fake_gpu")))


@pytest.fixture(scope="session")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, readable for every user."""
    directory = tmp_path_factory.mktemp("zipapp")
    output = directory / "gpu-check.pyz"
    subprocess.run([*BUILD, str(output)], check=True)
    return output


def python(version: str) -> str:
    """The interpreter of this version, or a skipped test."""
    name = f"python{version}"
    for candidate in (shutil.which(name), *glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}.*/bin/{name}"))):
        # a shim that only says "not installed" is found, too
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip(f"Python {version} is not installed here")


def test_the_same_input_gives_the_same_bytes(zipapp: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pyz"
    subprocess.run([*BUILD, str(again)], check=True, env={**os.environ, "TZ": "Asia/Tokyo"}, cwd="/", umask=0o077)
    assert again.read_bytes() == zipapp.read_bytes()
    assert os.listdir(tmp_path) == ["again.pyz"]


def test_it_is_executable_and_begins_with_a_line_for_the_shell(zipapp: Path) -> None:
    assert stat.S_IMODE(zipapp.stat().st_mode) == 0o755
    assert zipapp.read_bytes().startswith(b"#!/bin/sh\n")


def test_the_licence_of_everything_in_it_is_in_it(zipapp: Path) -> None:
    with zipfile.ZipFile(zipapp) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name).decode() for name in names if name.startswith("LICENSES/")}
    assert {name.split("/")[0].removesuffix(".py") for name in names} == {
        "LICENSES",
        "__main__",
        "click",
        "gpu_checks",
        "pynvml",
    }
    assert sorted(re.sub("-[0-9.]+txt$", "", name) for name in texts) == [
        "LICENSES/click",
        "LICENSES/jupyterhub-sidecar.txt",
        "LICENSES/nvidia_ml_py",
    ]
    for name, text in texts.items():
        assert "Copyright" in text, name
        assert "Redistribution and use" in text, name


@pytest.mark.parametrize("version", VERSIONS)
def test_every_supported_python_runs_it(zipapp: Path, fakes: str, version: str) -> None:
    environ = environment(fakes, {"FAKE_DEVICES": "2"})
    command = [python(version), "-I", str(zipapp), "--expect", "2", "--json"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    report = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr, report["verdict"]) == (0, "", "pass"), report
    assert report["versions"]["python"].startswith(version)
    assert report["versions"]["gpu_check"] == VERSION
    assert left_behind(environ) == []


def test_the_shell_finds_a_python_and_passes_everything_on(zipapp: Path, fakes: str, tmp_path: Path) -> None:
    place = tmp_path / "a b:*.xml"
    command = [str(zipapp), "quick", "--expect", "1", "--json", "--junit", str(place)]
    ended = subprocess.run(command, env=environment(fakes, {"FAKE_WRONG": "-1"}), capture_output=True, check=False)
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["summary"].startswith("GPU check: failed – the GPU computed a wrong result.")
    assert place.exists()


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_it_can_be_given_to_any_shell(zipapp: Path, shell: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed here")
    command = [found, "sh", str(zipapp)] if shell == "busybox" else [found, str(zipapp)]
    ended = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, f"gpu-check, version {VERSION}\n")


def test_a_hostile_environment_changes_nothing(zipapp: Path, fakes: str, tmp_path: Path) -> None:
    """Modules in the way, Python's own variables, and interpreters on the PATH that are too old or broken."""
    for name in ("sitecustomize", "usercustomize", "click", "pynvml", "json", "gpu_checks", "ctypes"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(0)")
    for name, text in (("python3", "exit 1"), ("python", "echo old; exit 1"), ("python3.13", "exec false")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    hostile = {"PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONINSPECT": "1"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environ = environment(fakes, {**hostile, **path, "FAKE_WRONG": "-1"})
    command = [str(zipapp), "--expect", "1", "--json"]
    ended = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended
    assert "computed a wrong result" in json.loads(ended.stdout)["summary"]


def test_a_stranger_without_a_home_and_without_a_writable_place_can_run_it(zipapp: Path, fakes: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are for its user only
        os.chmod(directory, 0o755)
        app = shutil.copy(zipapp, directory)
        shutil.copytree(fakes, f"{directory}/lib")
        os.chmod(f"{directory}/lib", 0o755)
        environ = environment(f"{directory}/lib", {"HOME": "/nonexistent", "TMPDIR": "/nonexistent"})
        environ["PATH"] = "/usr/bin:/bin"
        ended = as_nobody([app, "--expect", "1", "--json"], environ)
        if "no Python 3.9 or later" in ended.stdout:
            pytest.skip("no Python for other users here")
    assert ended.returncode == 0, ended
    assert json.loads(ended.stdout)["verdict"] == "pass"


def as_nobody(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=environ,
        user=65534,
        group=65534,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def without_python(zipapp: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The header alone, in front of a system in which no Python is found: with its places replaced by empty ones."""
    header = zipapp.read_bytes().split(b"PK\x03\x04", 1)[0].decode()
    script = header.replace("/opt/conda/bin /usr/local/bin /usr/bin /bin", "/nowhere").replace(
        "/proc/1/environ", "/nowhere"
    )
    assert script.count("/nowhere") == 2
    return subprocess.run(
        ["/bin/sh", "-c", script, str(zipapp), *options],
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_python_nothing_is_checked_and_nothing_passes(zipapp: Path) -> None:
    ended = without_python(zipapp, "--expect", "1")
    assert ended.returncode == 3
    assert "no Python 3.9 or later" in ended.stderr
    ended = without_python(zipapp, "--expect", "1", "--json")
    assert ended.returncode == 3
    assert json.loads(ended.stdout)["verdict"] == "unknown"


@pytest.mark.slow
def test_it_takes_no_longer_than_a_spawn_can_wait(zipapp: Path, fakes: str) -> None:
    times_s = []
    for _ in range(5):
        started = time.monotonic()
        subprocess.run([zipapp, "--expect", "1"], env=environment(fakes, {}), stdout=subprocess.DEVNULL, check=True)
        times_s.append(time.monotonic() - started)
    assert sorted(times_s)[2] < 3


def test_an_unreachable_package_index_is_one_line_and_no_file(tmp_path: Path) -> None:
    environ = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
    ended = subprocess.run([*BUILD, str(tmp_path / "x.pyz")], env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "build_zipapp: cannot get the packages of" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert os.listdir(tmp_path) == []
