from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPServerRequest, RequestStartLine

from hub.admission import RefusedRequest
from hub.request import check_display_name, check_server_name, form_fields, json_body, text_fields
from tests.unit.hub.test_claims import IGNORABLE

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_an_emoji_may_be_in_a_display_name() -> None:
    check_display_name("my \u2764\ufe0f server")


def form(body: bytes = b"", **headers: str) -> HTTPServerRequest:
    """A request as Tornado hands it to a handler."""
    names = {"Host": "hub", **{name.replace("_", "-"): value for name, value in headers.items()}}
    line = RequestStartLine("POST", "/", "HTTP/1.1")
    request = HTTPServerRequest(start_line=line, headers=HTTPHeaders(names), body=body, connection=HTTPConnection())
    request.body_arguments = {"profile": [b"custom"]}
    return request


@given(JSON)
def test_what_one_reader_understands_is_read_as_it_is(value: object) -> None:
    assert json_body(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        value = json_body(body)
    except RefusedRequest as refusal:
        status, message = refusal.status_code, refusal.jupyterhub_message
    else:
        status, message = 200, ""
        assert value is None or value == json.loads(body.decode())
    assert (status, message) == (200, "") or (status == 400 and message.isprintable())


@pytest.mark.parametrize("body", [b'{"a": 1, "a": 1}', b'{"x": {"a": 1, "a": 2}}', b"NaN", b"[-Infinity]"])
def test_what_two_readers_can_understand_differently_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedRequest, match="ambiguous"):
        json_body(body)


def test_a_body_of_any_length_costs_nothing() -> None:
    with pytest.raises(RefusedRequest, match="too long: 65537 bytes, and 65536 are allowed"):
        json_body(b"x" * 65537)


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "Multipart/Form-Data"]
)
def test_a_forms_fields_are_text_and_files_are_fields(kind: str) -> None:
    request = form(b"...", Content_Type=kind)
    request.files = {"notes": []}
    assert form_fields(request) == {"profile": ["custom"], "notes_file": []}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content_Type": "application/json"},
        {"Content_Type": "application/x-www-form-urlencoded", "Content_Encoding": "gzip"},
    ],
)
def test_a_body_that_nobody_reads_as_a_form_is_no_empty_form(headers: dict[str, str]) -> None:
    with pytest.raises(RefusedRequest, match="not a form"):
        form_fields(form(b"profile=custom", **headers))
    assert form_fields(form(b"", **headers)) == {"profile": ["custom"]}


def test_fields_for_jupyterhub_itself_are_no_options() -> None:
    fields = {"next": [b"/x"], "_xsrf": [b"\xff"], "display_name": [b"x"], "a": [b"1", "ü".encode()]}
    assert text_fields(fields) == {"a": ["1", "ü"]}
    with pytest.raises(RefusedRequest, match="not UTF-8"):
        text_fields({"a": [b"1", b"\xff"]})


@pytest.mark.parametrize("name", ["", "a", "default", "a b", "ü", "A-1_2.3", "<b>", "x" * 128])
def test_a_name_that_can_be_read_is_a_name(name: str) -> None:
    check_server_name(name)
    check_display_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        ".",
        "..",
        "a\n",
        "\0",
        "\u202ea",
        "a\u200b",
        " a",
        "a ",
        "\ud800",
        "x" * 129,
        "ü" * 22,
        *(f"a{character}" for character in IGNORABLE),
    ],
)
def test_a_name_that_cannot_be_read_or_be_in_an_address_is_refused(name: str) -> None:
    with pytest.raises(RefusedRequest) as caught:
        check_server_name(name)
    assert caught.value.jupyterhub_message.isprintable()


@pytest.mark.parametrize("name", [5, True, [], {}, "a\n", "\u202ea", "\0", "x" * 256])
def test_a_display_name_is_text_that_can_be_read(name: object) -> None:
    with pytest.raises(RefusedRequest) as caught:
        check_display_name(name)
    assert caught.value.status_code == 400
