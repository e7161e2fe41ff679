"""``gpu-check.pyz``: one file that runs in any image, the same bytes each time, whatever surrounds it."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import stat
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pytest

from gpu_checks import VERSION

from .fake_frameworks import install_torch
from .fake_gpu import compiled, environment, left_behind

ROOT = Path(__file__).parents[2]
BUILD = [sys.executable, str(ROOT / "images" / "build_zipapp.py"), "--output"]
# The first and the last supported version each time, those between with the slow tests.
BETWEEN = (pytest.param(version, marks=pytest.mark.slow) for version in ("3.10", "3.11", "3.12", "3.14"))
VERSIONS = ("3.9", *BETWEEN, "3.13")
PACKAGES = ("click", "gpu_checks", "pynvml")
LONGEST_S = 0.3  # for a healthy GPU, as the median of seven runs


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
    assert {name.split("/")[0].removesuffix(".py") for name in names} == {"LICENSES", "__main__", "compiled", *PACKAGES}
    tag = sys.implementation.cache_tag
    assert {"/".join(name.split("/")[:3]).removesuffix(".pyc") for name in names if name.startswith("compiled/")} == {
        f"compiled/{tag}/{package}" for package in PACKAGES
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


def stubs(directory: Path, text: str, names: tuple[str, ...] = ("python3", "python")) -> Path:
    """Programs in the place of Python."""
    directory.mkdir()
    for name in names:
        (directory / name).write_text(f"#!/bin/sh\n{text}\n")
        (directory / name).chmod(0o755)
    return directory


@pytest.mark.parametrize("stub", ["exit 0", "exit 1", "echo 3; exit 0"])
def test_a_python_that_does_nothing_is_none(zipapp: Path, tmp_path: Path, stub: str) -> None:
    place = stubs(tmp_path / "stubs", stub)
    ended = without_python(zipapp, "--expect", "1", path=str(place))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "no Python 3.9 or later" in ended.stderr


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_a_python_that_hangs_is_passed_over(zipapp: Path, tmp_path: Path, shell: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed here")
    place = stubs(tmp_path / "stubs", "exec sleep 60", ("python3",))
    command = [found, "sh", str(zipapp)] if shell == "busybox" else [found, str(zipapp)]
    environ = {"PATH": f"{place}:{os.path.dirname(sys.executable)}:/usr/bin:/bin"}
    started = time.monotonic()
    ended = subprocess.run([*command, "--version"], env=environ, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"gpu-check, version {VERSION}\n", "")
    assert time.monotonic() - started < 6


def test_pythons_that_all_hang_are_told_within_ten_seconds(zipapp: Path, tmp_path: Path) -> None:
    """Also where what they have started holds the standard streams."""
    names = ("python3", "python", "python3.13", "python3.12", "python3.11", "python3.10")
    place = stubs(tmp_path / "stubs", "sleep 20", names)
    started = time.monotonic()
    ended = without_python(zipapp, "--json", path=f"{place}:/usr/bin:/bin")
    assert time.monotonic() - started < 10
    assert ended.returncode == 3, ended
    assert ended.stderr == ""
    assert "did not answer" in json.loads(ended.stdout)["summary"]


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


def without_python(zipapp: Path, *options: str, path: str = "/nowhere") -> subprocess.CompletedProcess[str]:
    """The header alone, in front of a system in which no Python is found: with its places replaced by empty ones."""
    header = zipapp.read_bytes().split(b"PK\x03\x04", 1)[0].decode()
    script = header.replace("/opt/conda/bin /usr/local/bin /usr/bin /bin", "/nowhere").replace(
        "/proc/1/environ", "/nowhere"
    )
    assert script.count("/nowhere") == 2
    return subprocess.run(
        ["/bin/sh", "-c", script, str(zipapp), *options],
        env={"PATH": path},
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


def test_a_system_without_python_is_not_checked(zipapp: Path, tmp_path: Path) -> None:
    """A root directory with a shell and nothing else."""
    shell = shutil.which("dash")
    if os.geteuid() != 0 or shell is None:
        pytest.skip("needs root, to enter another root directory, and dash")
    needed = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    for path in (shell, *re.findall(r"(/\S+) \(0x", needed)):
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    shutil.copy(shell, tmp_path / "sh")
    shutil.copy(zipapp, tmp_path)
    for options in ([], ["--json"], ["--expect", "0"], ["short", "--background"]):
        command = ["chroot", str(tmp_path), "/sh", "/gpu-check.pyz", *options]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 3, ended
        said = json.loads(ended.stdout)["summary"] if options == ["--json"] else ended.stderr
        assert "no Python 3.9 or later was found in this image" in said


def test_a_login_shell_that_lost_the_path_finds_process_1s_python(zipapp: Path, tmp_path: Path) -> None:
    """Process 1 of a container has the image's PATH; a login shell has the system's."""
    conda = tmp_path / "conda"
    conda.mkdir()
    (conda / "python3").write_text(f'#!/bin/sh\necho conda >>{tmp_path}/used\nexec {sys.executable} "$@"\n')
    (conda / "python3").chmod(0o755)
    inside = f'env -i PATH=/usr/bin:/bin "{zipapp}" --version; exit 0'  # the shell stays: it is process 1
    command = ["unshare", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", inside]
    environ = {"PATH": f"{conda}:/usr/bin:/bin:/usr/sbin:/sbin"}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if "unshare" in ended.stderr:
        pytest.skip(f"no namespaces here: {ended.stderr.strip()}")
    assert ended.stdout == f"gpu-check, version {VERSION}\n"
    assert (tmp_path / "used").read_text() == "conda\n" * 2


WHERE = """
import runpy, sys
sys.argv = ["gpu-check", "--version"]
try:
    runpy.run_path(PLACE, run_name="__main__")
except SystemExit:
    print(sys.modules["gpu_checks.cli"].__file__)
"""


def test_its_own_python_takes_the_compiled_modules_and_every_other_the_sources(zipapp: Path) -> None:
    """Compiling takes longer than the check."""
    compiled = f"{zipapp}/compiled/{sys.implementation.cache_tag}/gpu_checks/cli.pyc"
    for interpreter, place in ((sys.executable, compiled), (python("3.9"), f"{zipapp}/gpu_checks/cli.py")):
        command = [interpreter, "-I", "-S", "-c", WHERE.replace("PLACE", repr(str(zipapp)))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.splitlines()[-1] == place


@pytest.mark.parametrize("version", VERSIONS)
def test_the_notebooks_python_may_be_another_one(zipapp: Path, fakes: str, tmp_path: Path, version: str) -> None:
    """``short`` asks it for its frameworks with our sources: compiled modules are for one Python only."""
    install_torch(tmp_path / "site")
    notebook = python(version)
    environ = environment(fakes, {"GPU_CHECK_PYTHON": notebook, "PYTHONPATH": str(tmp_path / "site")})
    command = [sys.executable, "-I", "-S", str(zipapp), "short", "--expect", "1", "--json"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    report = json.loads(ended.stdout)
    assert (ended.returncode, report["verdict"]) == (0, "pass"), report
    assert report["checks"][-1]["name"] == "torch product"
    assert report["frameworks"]["python"] == notebook
    assert report["frameworks"]["python_version"].startswith(version)


def test_a_notebook_whose_python_is_too_old_is_not_checked(zipapp: Path, fakes: str) -> None:
    environ = environment(fakes, {"GPU_CHECK_PYTHON": python("3.7")})
    command = [sys.executable, "-I", "-S", str(zipapp), "short", "--expect", "1", "--json"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    report = json.loads(ended.stdout)
    assert (ended.returncode, report["verdict"], report["quick"]["verdict"]) == (3, "unknown", "pass")
    assert "Python could not be asked for its frameworks" in report["summary"]


@pytest.mark.slow
def test_a_healthy_gpu_is_told_at_once(zipapp: Path, fakes: str) -> None:
    """With the shell in front, on a machine that is otherwise idle."""
    environ = environment(fakes, {"PATH": os.path.dirname(os.path.realpath(sys.executable))})
    times_s = []
    for _ in range(7):
        started = time.monotonic()
        subprocess.run([zipapp, "--expect", "1"], env=environ, stdout=subprocess.DEVNULL, check=True)
        times_s.append(time.monotonic() - started)
    assert statistics.median(times_s) <= LONGEST_S, times_s


def test_an_unreachable_package_index_is_one_line_and_no_file(tmp_path: Path) -> None:
    environ = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
    ended = subprocess.run([*BUILD, str(tmp_path / "x.pyz")], env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "build_zipapp: cannot get the packages of" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert os.listdir(tmp_path) == []
