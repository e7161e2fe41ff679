"""Children: whatever one of them does, its parent has an answer in time and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from gpu_checks.facts import Silence
from gpu_checks.runner import Answer, Children

SCRIPTS: Mapping[str, str] = {
    "answers": """echo '{"facts": {"n": 1, "list": []}}'; echo '{"add": ["list", 5]}'; echo '{"end": ""}'; sleep 60""",
    "has a defect": """echo '{"call": "a"}'; echo '{"end": "KeyError: 1"}'""",
    "hangs": """echo '{"facts": {"n": 1}}'; echo '{"call": "b"}'; sleep 60""",
    "ignores SIGTERM": """trap '' TERM; echo '{"call": "b"}'; sleep 60""",
    "says nothing": "sleep 60",
    "crashes": """echo '{"call": "c"}'; kill -SEGV $$""",
    "aborts": """echo '{"call": "c"}'; kill -ABRT $$""",
    "is killed": """echo '{"call": "d"}'; kill -KILL $$""",
    "exits": """echo '{"call": "e"}'; exit 7""",
    "ends without an end": """echo '{"facts": {"n": 1}}'; exit 0""",
    "writes garbage": "echo garbage; sleep 60",
    "writes no object": "echo 3; sleep 60",
    "adds to nothing": """echo '{"add": ["list", 5]}'; sleep 60""",
    "adds nonsense": """echo '{"facts": {"n": 1}}'; echo '{"add": 5}'; sleep 60""",
    "writes half a line": """printf '{"end": '""",
    "never stops": 'while :; do echo \'{"call": "a"}\'; done',
    "leaves a grandchild with the pipe": """sleep 60 & echo '{"end": ""}'""",
    "closes the pipe and stays": "exec >/dev/null; sleep 60",
}


def ask(name: str, limit_s: float = 2) -> tuple[Answer, float]:
    started = time.monotonic()
    with Children(end=started + 5, environ=os.environ, launch=lambda arguments: ["sh", "-c", arguments[0]]) as children:
        answer = children.start(SCRIPTS[name], deadline=started + limit_s).answer()
    return answer, time.monotonic() - started


@pytest.mark.parametrize(
    ("name", "reason", "call", "facts"),
    [
        ("answers", None, "", {"n": 1, "list": [5]}),
        ("has a defect", "defect", "a", None),
        ("crashes", "crashed", "c", None),
        ("aborts", "crashed", "c", None),
        ("is killed", "killed", "d", None),
        ("exits", "crashed", "e", None),
        ("ends without an end", "crashed", "", {"n": 1}),
        ("writes garbage", "garbled", "", None),
        ("writes no object", "garbled", "", None),
        ("adds to nothing", "garbled", "", None),
        ("adds nonsense", "garbled", "", {"n": 1}),
        ("writes half a line", "crashed", "", None),
        ("leaves a grandchild with the pipe", None, "", None),
    ],
)
def test_what_a_child_does_is_a_result(name: str, reason: str | None, call: str, facts: object) -> None:
    answer, took_s = ask(name)
    assert answer.facts == facts
    assert (answer.silence.reason if answer.silence else None) == reason
    assert not answer.silence or answer.silence.call == call
    assert took_s < 2


def test_a_child_that_never_stops_talking_is_cut_off() -> None:
    answer, took_s = ask("never stops")
    assert answer.facts is None
    assert answer.silence is not None
    assert answer.silence.reason == "garbled"
    assert took_s < 2


@pytest.mark.parametrize("name", ["hangs", "ignores SIGTERM", "says nothing", "closes the pipe and stays"])
def test_a_child_that_hangs_is_ended_at_its_deadline(name: str) -> None:
    answer, took_s = ask(name, limit_s=0.4)
    assert answer.silence is not None
    assert answer.silence.reason == "hung"
    assert "0.4 s" in answer.silence.detail
    assert took_s < 2


def test_a_hang_keeps_what_was_said_before_and_where_it_is() -> None:
    answer, _ = ask("hangs", limit_s=0.4)
    assert answer.facts == {"n": 1}
    assert answer.silence is not None
    assert answer.silence.call == "b"


def test_children_run_at_the_same_time_and_each_keeps_its_own_deadline() -> None:
    started = time.monotonic()
    with Children(end=started + 5, environ=os.environ, launch=lambda a: ["sh", "-c", a[0]]) as children:
        slow = [children.start("sleep 60", deadline=started + 0.5) for _ in range(3)]
        quick = children.start(SCRIPTS["answers"], deadline=started + 0.5)
        reasons = [child.answer().silence for child in slow]
        assert all(silence is not None and silence.reason == "hung" for silence in reasons)
        assert quick.answer().silence is None, "what was said in time counts, also when it is read late"
    assert time.monotonic() - started < 2.5


def test_a_child_that_cannot_be_started_is_a_result() -> None:
    with Children(end=time.monotonic() + 5, environ={}, launch=lambda _: ["/nowhere/python"]) as children:
        answer = children.start("cuda", deadline=time.monotonic() + 5).answer()
    assert answer.silence is not None
    assert answer.silence.reason == "not started"
    assert "nowhere" in answer.silence.detail


def test_everything_that_a_child_has_started_is_gone_afterwards(tmp_path: Path) -> None:
    script = f'sleep 61 & echo $! > {tmp_path}/pid; echo $$ >> {tmp_path}/pid; echo \'{{"end": ""}}\'; wait'
    started = time.monotonic()
    with Children(end=started + 5, environ=os.environ, launch=lambda a: ["sh", "-c", a[0]]) as children:
        assert children.start(script, deadline=started + 5).answer() == Answer()
    pids = [int(pid) for pid in (tmp_path / "pid").read_text().split()]
    assert len(pids) == 2
    assert all_ended(pids, within_s=2)


@pytest.mark.parametrize("end", ["exit 7", "kill -SEGV $$", 'echo \'{"end": ""}\''])
def test_what_a_dead_child_has_left_behind_is_ended_too(end: str, tmp_path: Path) -> None:
    ask_script(f"sleep 62 >/dev/null & echo $! > {tmp_path}/pid; {end}")
    assert all_ended([int((tmp_path / "pid").read_text())], within_s=2)


def all_ended(pids: list[int], *, within_s: float) -> bool:
    """A killed process takes a moment."""
    end = time.monotonic() + within_s
    while not all(ended(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    return all(ended(pid) for pid in pids)


def ended(pid: int) -> bool:
    """Gone, or dead and waiting for process 1 to notice."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


# A process that SIGKILL does not end, as in D state: its tracer, which lives for 3 s, holds it at the door (ptrace(2),
# PTRACE_EVENT_EXIT).
UNKILLABLE = """
import ctypes, os, time
SEIZE, TRACE_EXIT, SET_PTRACER, ANY = 0x4206, 0x40, 0x59616D61, 2**64 - 1
libc = ctypes.CDLL(None)
libc.ptrace.argtypes = [ctypes.c_long] * 4
libc.prctl(SET_PTRACER, ctypes.c_ulong(ANY), 0, 0, 0)
child, (read, write) = os.getpid(), os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(write, b"1" if libc.ptrace(SEIZE, child, 0, TRACE_EXIT) == 0 else b"0")
    time.sleep(3)
    os._exit(0)
if os.read(read, 1) == b"0":
    print('{"end": "no ptrace"}', flush=True)
print('{"facts": %d}' % child, flush=True)
print('{"call": "cuInit"}', flush=True)
time.sleep(60)
"""


def test_a_child_that_even_sigkill_does_not_end_is_named_and_not_waited_for() -> None:
    started = time.monotonic()
    command = [sys.executable, "-I", "-c", UNKILLABLE]
    with Children(end=started + 2, environ=os.environ, launch=lambda _: command) as children:
        answer = children.start("cuda", deadline=started + 1).answer()
    took_s = time.monotonic() - started
    if answer.silence is not None and answer.silence.detail == "no ptrace":
        pytest.skip("processes may not be traced here")
    if ended(int(str(answer.facts))):
        pytest.skip("this kernel lets SIGKILL end a process that is held in its exit")
    assert answer.silence == Silence("unkillable", "cuInit", "no answer within 1.0 s")
    assert took_s < 2.5


def test_many_children_that_nothing_ends_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "waitid", lambda *_: None)  # as if the kernel held them all
    started = time.monotonic()
    with Children(end=started + 1.5, environ=os.environ, launch=lambda a: ["sh", "-c", a[0]]) as children:
        scripts = ["exec sleep 60"] * 4 + ["exec >&-; exec sleep 60"] * 4
        held = [children.start(script, deadline=started + 0.5) for script in scripts]
        reasons = [silence.reason for child in held if (silence := child.answer().silence) is not None]
    assert reasons == ["unkillable"] * 8
    assert time.monotonic() - started < 2.5


def test_a_child_that_is_ended_with_others_has_hung_and_keeps_what_it_said() -> None:
    started = time.monotonic()
    with Children(end=started + 5, environ=os.environ, launch=lambda a: ["sh", "-c", a[0]]) as children:
        slow = children.start("sleep 60", deadline=started + 0.5)
        others = [children.start(SCRIPTS[name], deadline=started + 0.5) for name in ("hangs", "crashes", "is killed")]
        slow.answer()
        answers = [other.answer() for other in others]
    assert [answer.silence.reason for answer in answers if answer.silence] == ["hung", "crashed", "killed"]
    assert answers[0].facts == {"n": 1}


def test_a_message_in_pieces_is_one_message() -> None:
    answer, _ = ask_script('printf \'{"fac\'; sleep 0.1; printf \'ts": {"n": 2}}\\n{"end": ""}\\n\'')
    assert answer == Answer({"n": 2})


def ask_script(script: str) -> tuple[Answer, float]:
    started = time.monotonic()
    with Children(end=started + 5, environ=os.environ, launch=lambda _: ["sh", "-c", script]) as children:
        return children.start("any", deadline=started + 2).answer(), time.monotonic() - started


def test_the_longest_honest_answer_is_taken() -> None:
    line = json.dumps({"add": ["list", "x" * 500]})
    script = f"""echo '{{"facts": {{"list": []}}}}'; for i in $(seq 64); do echo '{line}'; done; echo '{{"end": ""}}'"""
    answer, _ = ask_script(script)
    assert answer.silence is None
    assert answer.facts is not None
    assert len(answer.facts["list"]) == 64


def test_signals_are_named() -> None:
    answer, _ = ask("crashes")
    assert answer.silence is not None
    assert answer.silence.detail == signal.Signals.SIGSEGV.name
