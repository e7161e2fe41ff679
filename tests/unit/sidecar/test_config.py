"""Settings go into the environment and come back the same; what is wrong is said all at once."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config import VARIABLES, Settings, from_environ, to_environ
from sidecar.errors import UsageError

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=40)
_component = _text.filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)
_absolute = st.lists(_component, max_size=4).map(lambda parts: "/" + "/".join(parts))
_seconds = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)

settings_of_any_kind = st.builds(
    Settings,
    home=_absolute,
    persist=_absolute,
    server=_component,
    grace_s=_seconds,
    require_mount=st.booleans(),
    mounts=st.lists(_component.filter(lambda name: ":" not in name), max_size=4).map(tuple),
    restore=st.booleans(),
    quiet_s=_seconds,
    max_delay_s=_seconds,
    scan_interval_s=_seconds,
    max_file_bytes=st.integers(min_value=1, max_value=2**80),
    retention_days=st.integers(min_value=1, max_value=3650),
    socket=st.just("") | _absolute,
    gpu_report=st.just("") | _absolute,
    pod_uid=st.from_regex(r"[0-9A-Za-z.-]{0,64}", fullmatch=True),
    owner=st.just("") | _text,
)


@given(settings_of_any_kind)
def test_settings_to_environment_to_settings_is_the_identity(settings: Settings) -> None:
    assert from_environ(to_environ(settings)) == settings


def test_every_field_has_a_variable() -> None:
    assert set(VARIABLES) == {field.name for field in fields(Settings)}


def test_every_problem_is_named_at_once() -> None:
    environ = {
        "SIDECAR_GRACE": "soon",
        "SIDECAR_RESTORE": "yes",
        "SIDECAR_SERVER": "a/b",
        "SIDECAR_QUIET": "-1",
        "SIDECAR_COLOUR": "red",
        "SIDECAR_HOME": "relative",
    }
    with pytest.raises(UsageError) as caught:
        from_environ(environ)
    for part in ("GRACE", "RESTORE", "COLOUR", "'relative'", "'a/b'", "quiet_s", "--persist"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "name",
    [
        "SIDECAR_SERVICE_HOST",
        "SIDECAR_SERVICE_PORT",
        "SIDECAR_SERVICE_PORT_HTTP",
        "SIDECAR_PORT",
        "SIDECAR_PORT_80_TCP",
    ],
)
def test_the_variables_of_a_service_called_sidecar_are_tolerated(name: str) -> None:
    settings = Settings(home="/h", persist="/p")
    assert from_environ({**to_environ(settings), name: "tcp://10.0.0.1:80"}) == settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"home": "h"},
        {"persist": ""},
        {"home": "/h\0"},
        {"server": ""},
        {"server": ".."},
        {"server": "x" * 256},
        {"mounts": ("a:b",)},
        {"mounts": ("",)},
        {"grace_s": 0},
        {"quiet_s": math.nan},
        {"scan_interval_s": math.inf},
        {"max_file_bytes": 0},
        {"retention_days": 0},
        {"retention_days": 3651},
        {"socket": "\0"},
        {"pod_uid": "a/b"},
        {"pod_uid": "x" * 65},
        {"owner": "a\0"},
        {"owner": "x" * 1025},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Settings(**{"home": "/h", "persist": "/p", **wrong})  # type: ignore[arg-type]  # wrong on purpose


def test_options_win_over_the_environment() -> None:
    settings = from_environ(
        {"SIDECAR_HOME": "/h", "SIDECAR_PERSIST": "/p", "SIDECAR_GRACE": "?"}, grace_s=5.0, server=None
    )
    assert (settings.grace_s, settings.server) == (5.0, "default")


def test_different_places_have_different_sockets() -> None:
    places = [("/h", "/p", "s"), ("/h", "/p", "t"), ("/h", "/q", "s"), ("/h/p", "/p", "s")]
    assert len({Settings(home=h, persist=p, server=s).socket_path for h, p, s in places}) == len(places)
