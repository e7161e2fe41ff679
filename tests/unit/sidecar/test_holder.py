"""Whether a process is gone is said only where that is sure."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from sidecar.backup.holder import Holder, is_gone, this_process


def _of(pid: int) -> Holder:
    with open(f"/proc/{pid}/stat", "rb") as file:
        started_ticks = int(file.read().rpartition(b")")[2].split()[19])
    return replace(this_process(), pid=pid, started_ticks=started_ticks)


def test_we_are_here_and_say_where() -> None:
    us = this_process("pod-a")
    assert not is_gone(us)
    assert (us.pod_uid, us.pid) == ("pod-a", os.getpid())
    assert us.boot_id
    assert us.pid_namespace.count(":") == 1
    assert us.is_process(this_process())


def test_a_pid_that_is_used_again_is_another_process() -> None:
    us = this_process()
    assert is_gone(replace(us, started_ticks=us.started_ticks - 1))


def test_a_process_is_gone_when_it_has_ended_even_if_nobody_has_waited_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = _of(process.pid)
    assert not is_gone(holder)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert is_gone(holder)
    process.wait()
    assert is_gone(holder)
    assert process.stdin is not None
    process.stdin.close()


_LEADER_ENDS = """
import ctypes, os, threading, time
threading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""


def test_a_process_of_which_a_thread_lives_on_is_not_gone() -> None:
    """Only its first thread has ended, and it looks like one that is dead: as with a thread that hangs in NFS."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LEADER_ENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    holder = _of(process.pid)
    ended = threading.Event()
    for _ in range(1000):
        with open(f"/proc/{process.pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                break
        ended.wait(0.01)
    else:
        pytest.fail("its first thread goes on")
    assert not is_gone(holder)
    process.stdin.write("x")
    process.stdin.close()
    process.wait()
    process.stdout.close()
    assert is_gone(holder)
