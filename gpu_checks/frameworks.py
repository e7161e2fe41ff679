"""The frameworks of the notebook's Python: found, run one after the other, and judged.

Each runs in a child of the notebook's own Python with its own time limit; this process imports none of them.
"""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from . import framework_faults as ff
from .facts import Heard, Malformed, Silence, decode
from .framework_facts import NAMES as FRAMEWORKS
from .framework_facts import Installed, Run, Situation, Wheel
from .framework_verdict import judge, needs_run
from .gpus import found
from .result import Check, Framework, Frameworks, Verdict, plain
from .runner import Answer, Children, source_root

PYTHON_VARIABLE = "GPU_CHECK_PYTHON"
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
NAMES = ("python3", "python")
SAID_BYTES = 16 * 1024  # the end of what a framework prints is read
LATE_S = 0.5

# The notebook's Python runs this: with its own packages and variables, as a kernel has them, but without the working
# directory; and our archive, which also holds click and pynvml, is on its path only while we import ourselves.
_START = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; from gpu_checks.probe import main; "
    "del sys.path[0]; main(sys.argv[2:])"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """Seconds for each child. Importing takes 2 to 6 s on an idle machine; beside other work, at the lowest priority,
    many times that."""

    wheels_s: float = 30.0
    framework_s: float = 180.0


@dataclass(frozen=True)
class Notebook:
    """The Python whose frameworks are meant, and the environment that it has in the notebook."""

    python: str
    environ: Mapping[str, str]


@dataclass(frozen=True)
class Checked:
    """The frameworks' part of a report."""

    section: Frameworks
    checks: tuple[Check, ...]


def notebook(environ: Mapping[str, str], *, after_start: bool, init: str = "/proc/1/environ") -> Notebook:
    """The notebook's Python: the one that is named, or that this was started in as an installed package, or in the
    notebook's container the first of its process 1's PATH.

    ``after_start``: started by the container's post-start hook, whose environment lacks what process 1 was given.
    """
    if environ.get(PYTHON_VARIABLE):
        return Notebook(environ[PYTHON_VARIABLE], environ)
    if not os.path.isfile(source_root()):  # no archive: the Python that has this package installed
        return Notebook(sys.executable, environ)
    first = _environment_of(init)
    path = [*first.get("PATH", "").split(":"), *environ.get("PATH", "").split(":")]
    candidates = [os.path.join(directory, name) for directory in path if directory.startswith("/") for name in NAMES]
    python = next((each for each in candidates if os.access(each, os.X_OK) and os.path.isfile(each)), sys.executable)
    return Notebook(python, first if after_start and first else environ)


def check(notebook: Notebook, situation: Situation, limits: Limits = Limits()) -> Checked:
    """What the notebook's frameworks do with the GPUs of this situation; without GPUs, with the CPU."""
    started = time.monotonic()
    installed = _installed(notebook, limits)
    frameworks: list[Framework] = []
    checks: list[Check] = []
    if installed.facts is None or installed.silence is not None:
        silence = installed.silence or Silence("garbled")
        detail = f"{notebook.python}: {silence.reason} {silence.detail}"
        checks.append(found("frameworks", Verdict.UNKNOWN, ff.PYTHON_SILENT, detail=detail))
    for wheel in installed.facts.wheels if installed.facts is not None else ():
        framework, made = _one(notebook, wheel, situation, limits)
        frameworks.append(framework)
        checks += made
    section = Frameworks(
        python=plain(notebook.python, 200),
        python_version=plain(installed.facts.python if installed.facts else "", 40),
        found=tuple(frameworks),
        duration_s=round(time.monotonic() - started, 3),
        finished_at=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return Checked(section, tuple(checks))


def _one(notebook: Notebook, wheel: Wheel, situation: Situation, limits: Limits) -> tuple[Framework, tuple[Check, ...]]:
    if not needs_run(wheel, situation):
        return judge(wheel, None, situation)
    where = "gpu" if situation.on_gpus else "cpu"
    log = _Log()
    answer = _answer(notebook, ("framework", wheel.name, where), limits.framework_s, _settings(situation), log)
    return judge(wheel, _heard(answer, Run), situation, log.end())


def _settings(situation: Situation) -> dict[str, str]:
    """What a framework is told by its environment."""
    settings = {
        "OMP_NUM_THREADS": "1",  # it runs beside the user's own work
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # TensorFlow takes all memory of every GPU otherwise
        "TF_CPP_MIN_LOG_LEVEL": "0",  # why it finds no GPU stands in its log only
    }
    return settings if situation.on_gpus else {**settings, VISIBLE_DEVICES: "-1"}


def _installed(notebook: Notebook, limits: Limits) -> Heard[Installed]:
    log = _Log()
    heard = _heard(_answer(notebook, ("wheels",), limits.wheels_s, {}, log), Installed)
    said = log.end()
    names = tuple(wheel.name for wheel in heard.facts.wheels) if heard.facts is not None else FRAMEWORKS
    if names != FRAMEWORKS:  # the notebook's Python may be anything
        return Heard(None, Silence("garbled", detail="it did not name the frameworks that were asked for"))
    if heard.silence is None:
        return heard
    return Heard(heard.facts, Silence(heard.silence.reason, heard.silence.call, f"{heard.silence.detail}; {said}"))


def _answer(
    notebook: Notebook, arguments: tuple[str, ...], limit_s: float, extra: Mapping[str, str], log: _Log
) -> Answer:
    """What one child of the notebook's Python has to say. No process of it is left afterwards."""

    def launch(arguments: tuple[str, ...]) -> list[str]:
        return [notebook.python, "-c", _START, source_root(), str(os.getpid()), *arguments]

    deadline = time.monotonic() + limit_s
    with Children(end=deadline + 1.0, environ={**notebook.environ, **extra}, launch=launch) as children:
        return children.start(*arguments, deadline=deadline, stderr=log.descriptor).answer()


def _heard(answer: Answer, kind: type[T]) -> Heard[T]:
    if answer.facts is None:
        return Heard(None, answer.silence or Silence("garbled", detail="no facts"))
    try:
        return Heard(decode(kind, answer.facts), answer.silence)
    except Malformed as malformed:
        return Heard(None, answer.silence or Silence("garbled", detail=str(malformed)))


class _Log:
    """What is written to ``descriptor``, its end only: a framework may print without end, and there may be no writable
    place."""

    def __init__(self) -> None:
        self._source, self.descriptor = os.pipe()
        self._tail = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def end(self) -> str:
        """The last lines, without the framework's time stamps. To be called once, after the writer's end."""
        os.close(self.descriptor)
        self._reader.join(LATE_S)  # somebody who has left the writer's process group may still hold it
        lines = self._tail.decode("utf-8", "replace").splitlines()
        return " | ".join(" ".join(line.split()) for line in lines if line.strip())[-SAID_BYTES:]

    def _read(self) -> None:
        while chunk := os.read(self._source, SAID_BYTES):
            self._tail = (self._tail + chunk)[-SAID_BYTES:]
        os.close(self._source)


def _environment_of(path: str) -> dict[str, str]:
    """The environment in a file of proc(5); empty where it must not be read."""
    try:
        with open(path, "rb") as file:
            entries = os.fsdecode(file.read()).split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
