"""A stand-in for the programs of a server: ``python standin.py ROLE FILE …`` does what FILE says, and writes down what
it was asked in FILE.calls.

FILE is JSON. For a sidecar: ``run`` (exit code after SIGTERM), ``early`` (exit at once with this code), ``backup``
(exit code), ``states`` (what status answers, one after the other). For a notebook: ``early`` (ends at once with this
code), ``exit`` (ends with this code once it was seen to listen), ``stubborn`` (ignores SIGTERM), ``kernel`` (has a
child in a session of its own), ``unmarked`` (the same, with an empty environment). For a GPU check: ``output`` and
``exit``, or ``hang``; ``file`` (where a report is left).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn


def main() -> NoReturn:
    role, file, *arguments = sys.argv[1:]
    rules: dict[str, Any] = json.loads(Path(file).read_text())
    if role == "preflight":
        arguments.append(f"GPU_CHECK_EXPECT={os.environ['GPU_CHECK_EXPECT']}")
    with Path(f"{file}.calls").open("a") as calls:
        calls.write(f"{role} {' '.join(arguments)}\n")
    if role == "sidecar":
        sys.exit(_sidecar(arguments[0], rules, Path(f"{file}.asked")))
    if role == "notebook":
        sys.exit(_notebook(int(arguments[0]), rules))
    if rules.get("hang"):
        threading.Event().wait()
    if "file" in rules:
        Path(rules["file"]).write_text('{"in": "full"}')
    sys.stdout.write(rules.get("output", ""))
    sys.exit(rules.get("exit", 0))


def _sidecar(command: str, rules: dict[str, Any], asked: Path) -> int:
    ready = asked.with_suffix(".ready")
    if command == "status":
        if not (ready.exists() and Path("/proc", ready.read_text()).exists()):
            sys.stdout.write('{"state": "starting"}')
            return 0
        number = len(asked.read_text()) if asked.exists() else 0
        asked.write_text("x" * (number + 1))
        states = rules.get("states", [{"state": "watching"}])
        sys.stdout.write(json.dumps(states[min(number, len(states) - 1)]))
        return 0
    if command == "backup":
        return int(rules.get("backup", 0))
    if "early" in rules:
        sys.stderr.write("an earlier line\nPersist cannot be used\n")
        return int(rules["early"])
    ready.write_text(str(os.getpid()))
    _wait_for_sigterm()
    sys.stderr.write("the last line\n")
    return int(rules.get("run", 0))


def _notebook(port: int, rules: dict[str, Any]) -> int:
    if "early" in rules:
        sys.stderr.write("No module named jupyterlab\n")
        return int(rules["early"])
    if rules.get("kernel") or rules.get("unmarked"):
        # As jupyter_client does: a session of its own.
        environ: dict[str, str] | None = {} if rules.get("unmarked") else None
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environ, start_new_session=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        if "exit" in rules:
            listener.accept()
            time.sleep(0.5)  # whoever saw it listen sees it run
            return int(rules["exit"])
        if rules.get("stubborn"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            threading.Event().wait()
        _wait_for_sigterm()
    return 0


def _wait_for_sigterm() -> None:
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
