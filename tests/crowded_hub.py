"""A real hub with any people in it, whose groups a test can change, and with a stand-in for their notebooks."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hub.launch import Launch, hub_mark
from hub.policy_file import SHIPPED
from hub.processes import MARK
from tests.hub_process import PASSWORD, Hub, free_port

CHECKOUT = Path(__file__).resolve().parent.parent
SERVICE_TOKEN = "token of the starter"

_NOTEBOOK = """\
#!{python} -IS
import os, signal, socket, sys, time
from urllib.parse import urlsplit
where = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
def note(sign):
    line = sign + " " + os.environ["GPU_CHECK_EXPECT"] + " " + where.path + "\\n"
    journal = os.open({directory!r} + "/journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(journal, line.encode())
def end(*_):
    if rule == "ends slowly":
        time.sleep(2)
    note("-")
    sys.exit(0)
try:
    with open({directory!r} + "/" + where.path.strip("/").replace("/", ".")) as file:
        rule = file.read()
except OSError:
    rule = ""
if rule.startswith("fails"):
    sys.exit(rule)
signal.signal(signal.SIGTERM, end)
note("+")
if rule == "never listens":
    signal.pause()
with socket.socket() as listener:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", where.port))
    listener.listen()
    while True:
        with listener.accept()[0] as browser:
            if browser.recv(65536):
                browser.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{{}}")
"""

_KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:9"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
    "current-context": "none",
}


def standin_notebook(directory: Path) -> Path:
    """A notebook environment whose server starts in no time, and writes in ``directory/journal`` a line for each start
    (``+``) and each end (``-``), with the number of its GPUs.

    A file ``directory/user.NAME.SERVER`` makes that server different: ``fails …``, which it says, ``never listens``, or
    ``ends slowly``.
    """
    program = directory / "bin" / "jupyterhub-singleuser"
    program.parent.mkdir(parents=True)
    program.write_text(_NOTEBOOK.format(python=sys.executable, directory=str(directory)))
    program.chmod(0o755)
    return directory


@dataclass
class CrowdedHub(Hub):
    """A hub with ``people``, who are names with their groups; and a service, ``starter``, that may start servers."""

    people: dict[str, list[str]] = field(default_factory=dict)
    policy_file: str = SHIPPED

    def __post_init__(self) -> None:
        self.notebook = str(standin_notebook(self.data.with_name("notebook")))
        own = self.data / "hub"
        own.mkdir(parents=True)
        (own / "kubeconfig").write_text(yaml.safe_dump(_KUBECONFIG))
        self._inner_ports = free_port(), free_port()
        self.tell(self.people)

    def tell(self, people: dict[str, list[str]]) -> None:
        """From now on the identity provider says this."""
        self.people = people
        self._people_file.write_text(json.dumps(people))

    @property
    def inner(self) -> str:
        """Where notebooks find the hub: no proxy is in between."""
        return f"http://127.0.0.1:{self._inner_ports[0]}"

    @property
    def _people_file(self) -> Path:
        return self.data.with_name("people.json")

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "hub.serve", "-f", str(CHECKOUT / "tests" / "crowd_config.py")]

    def _environ(self) -> dict[str, str]:
        hub_port, proxy_port = self._inner_ports
        launch = Launch(
            data=str(self.data),
            policy_file=self.policy_file,
            notebook_environment=self.notebook,
            password=PASSWORD,
            port=self.port,
            hub_port=hub_port,
            proxy_port=proxy_port,
        )
        return {
            **os.environ,
            **launch.to_environ(),
            MARK: hub_mark(launch.data),
            "PYTHONPATH": str(CHECKOUT),
            "KUBECONFIG": str(self.data / "hub" / "kubeconfig"),
            "CROWD_PEOPLE": str(self._people_file),
            "CROWD_PASSWORD": PASSWORD,
            "CROWD_SERVICE_TOKEN": SERVICE_TOKEN,
        }

    def _directory(self) -> str:
        return str(self.data / "hub")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the hub's own database."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.data}/hub/jupyterhub.sqlite?mode=ro", uri=True)
        ) as database:
            return database.execute(sql).fetchall()

    def rule(self, user: str, server: str, rule: str) -> None:
        """From its next start on, the notebook of ``server`` behaves so."""
        (Path(self.notebook) / f"user.{user}.{server}").write_text(rule)

    def started(self) -> list[tuple[str, int, str]]:
        """``+`` or ``-``, GPUs and address of every notebook that started or ended, in order."""
        journal = Path(self.notebook) / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [(sign, int(gpus), address) for sign, gpus, address in (line.split(" ", 2) for line in lines)]
