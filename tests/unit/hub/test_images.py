from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.images import Image, ImageError, parse_image, parse_pattern

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("ubuntu:22.04", Image(registry="docker.io", path=("library", "ubuntu"), tag="22.04")),
        ("jupyter/base:x", Image(registry="docker.io", path=("jupyter", "base"), tag="x")),
        (
            "quay.io/jupyter/pytorch-notebook:2025-11-06",
            Image(registry="quay.io", path=("jupyter", "pytorch-notebook"), tag="2025-11-06"),
        ),
        ("host:5000/img:v1", Image(registry="host:5000", path=("img",), tag="v1")),
        ("localhost/img:v1", Image(registry="localhost", path=("img",), tag="v1")),
        ("QUAY.IO/a/b:1", Image(registry="quay.io", path=("a", "b"), tag="1")),
        ("docker.io/ubuntu:1", Image(registry="docker.io", path=("library", "ubuntu"), tag="1")),
        ("index.docker.io/a/b:1", Image(registry="docker.io", path=("a", "b"), tag="1")),
        (f"quay.io/a/b@{DIGEST}", Image(registry="quay.io", path=("a", "b"), digest=DIGEST)),
        (f"quay.io/a/b:1@{DIGEST}", Image(registry="quay.io", path=("a", "b"), tag="1", digest=DIGEST)),
        ("[::1]:5000/a:1", Image(registry="[::1]:5000", path=("a",), tag="1")),
        ("nvcr.io/nvidia/pytorch:24.10-py3", Image(registry="nvcr.io", path=("nvidia", "pytorch"), tag="24.10-py3")),
        (
            "custom-registry.example.com/ml-notebook:v1.0",
            Image(registry="custom-registry.example.com", path=("ml-notebook",), tag="v1.0"),
        ),
    ],
)
def test_a_reference_is_taken_apart(text: str, image: Image) -> None:
    assert parse_image(text) == image


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "x",
        "x:",
        ":x",
        "x:y\n",
        "\nx:y",
        " x:y z ",
        "x:y ",
        "x :y",
        "http://x:y",
        "https://quay.io/a:1",
        "docker://quay.io/a:1",
        "img:tag --privileged",
        "host:5000/img",
        "host:5000/",
        "quay.io/jupyter/x",
        "quay.io/Jupyter/x:1",
        "quay.io//x:1",
        "quay.io/../x:1",
        "quay.io/x/:1",
        "/x:1",
        "x:1:2",
        "x:.1",
        "x:-1",
        "x:" + "a" * 129,
        "x@sha256:abc",
        "x@md5:" + "0" * 32,
        f"x@{DIGEST.upper()}",
        f"x@{DIGEST}\n",
        f"x@{DIGEST}@{DIGEST}",
        "user@host/x:1",
        "user:pw@host/x:1",
        "x:ü",
        "ü:1",
        "x:1\u202e",
        "x:1\u0000",
        "a" * 300 + ":1",
        "a" * 2000 + ":1",
        "host:99999999/x:1",
        "-x.io/a:1",
        "quay.io/a__\u200bb:1",
    ],
)
def test_what_is_no_reference_with_a_version_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_image(text)
    assert str(caught.value).isprintable()


@given(st.text())
def test_any_text_is_an_image_or_a_readable_refusal(text: str) -> None:
    try:
        image = parse_image(text)
    except ImageError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert image.tag or image.digest
    assert refusal.isprintable()


@pytest.mark.parametrize(
    ("pattern", "text", "allowed"),
    [
        ("quay.io/jupyter/*", "quay.io/jupyter/scipy-notebook:latest", True),
        ("quay.io/jupyter/*", f"quay.io/jupyter/scipy-notebook@{DIGEST}", True),
        ("quay.io/jupyter/*", "QUAY.IO/jupyter/scipy-notebook:latest", True),
        ("quay.io/jupyter/*", "quay.io/jupyter/a/b:1", False),
        ("quay.io/jupyter/*", "quay.io/jupyterx/a:1", False),
        ("quay.io/jupyter/*", "evil.io/quay.io/jupyter/a:1", False),
        ("quay.io/jupyter/*", "quay.io.evil.com/jupyter/a:1", False),
        ("quay.io/jupyter/*", "quay.io:443/jupyter/a:1", False),
        ("quay.io/jupyter/*", "jupyter/a:1", False),
        ("quay.io/jupyter/*-notebook", "quay.io/jupyter/scipy-notebook:1", True),
        ("quay.io/jupyter/*-notebook", "quay.io/jupyter/scipy:1", False),
        ("quay.io/jupyter/**", "quay.io/jupyter/a/b:1", True),
        ("quay.io/jupyter/**", "quay.io/jupyter:1", False),
        ("quay.io/**", "quay.io/a:1", True),
        ("docker.io/library/*", "ubuntu:22.04", True),
        ("docker.io/jupyter/*", "jupyter/base:1", True),
        ("docker.io/library/*", "docker.io/ubuntu:1", True),
        ("docker.io/*", "ubuntu:1", True),
        ("docker.io/*", "jupyter/base:1", False),
        ("docker.io/**", "ubuntu:1", True),
        ("quay.io/*a*b*/x", "quay.io/1a2b3/x:1", True),
        ("quay.io/*a*b*/x", "quay.io/1b2a3/x:1", False),
        ("quay.io/ab*b*/x", "quay.io/ab/x:1", False),
        ("quay.io/*a*ab/x", "quay.io/ab/x:1", False),
        ("quay.io/ab*ba/x", "quay.io/aba/x:1", False),
        ("localhost:5000/*", "localhost:5000/a:1", True),
        ("localhost:5000/*", "localhost:5001/a:1", False),
        ("quay.io/a.b/*", "quay.io/axb/c:1", False),
    ],
)
def test_the_allow_list_matches_registry_and_path(pattern: str, text: str, allowed: bool) -> None:
    assert parse_pattern(pattern).matches(parse_image(text)) is allowed


@pytest.mark.parametrize(
    "text", ["", "*", "*/x", "quay.io", "quay.io/", "quay.io/**/x", "quay.io/a:1", "q/ü", "a/b**", "jupyter/*"]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ImageError):
        parse_pattern(text)


def test_a_pattern_full_of_stars_costs_no_more_than_the_image_is_long() -> None:
    pattern, image = parse_pattern("quay.io/" + "*a" * 100 + "*"), parse_image("quay.io/" + "a" * 99 + "b" * 100 + ":1")
    assert not pattern.matches(image)
