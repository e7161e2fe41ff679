"""The shipped policy is the deployment that this product replaces, cell by cell, as a user of it sees it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from hub.groups import is_admin, may_log_in
from hub.policy_file import SHIPPED, load_policy, parse_policy
from hub.profiles import offered_profiles
from hub.quantity import format_cpus, format_memory
from hub.resolve import Granted, Refused, resolve

POLICY = load_policy()
PYTORCH = "quay.io/jupyter/pytorch-notebook:2025-11-06"
CUDA = "quay.io/jupyter/pytorch-notebook:cuda12-2025-11-06"
GROUPS = {"everybody": (), "cpsHPCAccess": ("cpsHPCAccess",)}

# who           profile     name                               cores memory GPUs image    default
TABLE = """
everybody    | standard  | 💻 Standard Notebook Environment | 2  | 4G  | 0 | PYTORCH | yes
cpsHPCAccess | cpu-basic | 💻 CPU Only (Basic)              | 2  | 4G  | 0 | PYTORCH | yes
cpsHPCAccess | a100-1    | 🚀 Single A100 GPU               | 8  | 32G | 1 | CUDA    | no
cpsHPCAccess | a100-2    | 🔥 Dual A100 GPUs                | 16 | 64G | 2 | CUDA    | no
cpsHPCAccess | custom    | ⚙️ Custom Configuration          | 8  | 32G | 1 | CUDA    | no
"""
COLUMNS = ("who", "slug", "display_name", "cpus", "memory", "gpus", "image", "default")
ROWS = [dict(zip(COLUMNS, map(str.strip, line.split("|")), strict=True)) for line in TABLE.strip().splitlines()]
CELLS = [pytest.param(row, column, id=f"{row['slug']}-{column}") for row in ROWS for column in COLUMNS[2:]]


def offer(row: dict[str, str]) -> dict[str, Any]:
    offered = offered_profiles(GROUPS[row["who"]], POLICY)["profiles"]
    return next(profile for profile in offered if profile["slug"] == row["slug"])


def decide(groups: tuple[str, ...], options: object) -> Granted | Refused:
    return resolve("ada", groups, options=options, running={}, policy=POLICY)


@pytest.mark.parametrize("who", GROUPS)
def test_each_sees_the_profiles_of_the_table_in_its_order(who: str) -> None:
    offered = offered_profiles(GROUPS[who], POLICY)["profiles"]
    assert [profile["slug"] for profile in offered] == [row["slug"] for row in ROWS if row["who"] == who]


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_a_cell_of_the_table_is_what_is_offered(row: dict[str, str], column: str) -> None:
    wanted = {"PYTORCH": PYTORCH, "CUDA": CUDA, "yes": "True", "no": "False"}.get(row[column], row[column])
    assert str(offer(row)[column]) == wanted


@pytest.mark.parametrize("row", ROWS, ids=[row["slug"] for row in ROWS])
def test_a_row_of_the_table_is_what_is_started(row: dict[str, str]) -> None:
    answer = decide(GROUPS[row["who"]], {"profile": row["slug"]})
    assert isinstance(answer, Granted)
    size = answer.decision.size
    assert (format_cpus(size.millicpu), format_memory(size.memory_bytes), str(size.gpus)) == (
        row["cpus"],
        row["memory"],
        row["gpus"],
    )
    assert answer.decision.image == {"PYTORCH": PYTORCH, "CUDA": CUDA}[row["image"]]


@pytest.mark.parametrize(
    ("option", "choices", "default"),
    [
        ("cpus", ["2", "4", "8", "16"], "8"),
        ("memory", ["4G", "8G", "16G", "32G", "64G", "128G"], "32G"),
        ("gpus", ["0", "1", "2"], "1"),
        ("image", ["PyTorch", "TensorFlow", "Data Science"], "PyTorch"),
    ],
)
def test_the_custom_profile_has_the_choices_of_the_table(option: str, choices: list[str], default: str) -> None:
    offered = offer(ROWS[-1])["profile_options"][option]["choices"]
    names = {key: choice["display_name"] if option == "image" else key for key, choice in offered.items()}
    assert list(names.values()) == choices
    assert [names[key] for key, choice in offered.items() if choice["default"]] == [default]


def test_only_the_custom_profile_offers_anything_and_takes_other_images() -> None:
    assert [row["slug"] for row in ROWS if offer(row)["profile_options"]] == ["custom"]
    assert offer(ROWS[-1])["profile_options"]["image"]["unlisted_choice"]["enabled"]


@pytest.mark.parametrize(
    ("image", "granted"),
    [
        ("nvcr.io/nvidia/pytorch:24.10-py3", True),
        ("quay.io/jupyter/scipy-notebook:latest", True),
        ("custom-registry.example.com/ml-notebook:v1.0", False),  # valid, and for the administrator to allow
        ("no-version", False),
    ],
)
def test_a_custom_image_is_any_valid_one_that_the_image_policy_allows(image: str, granted: bool) -> None:
    answer = decide(("cpsHPCAccess",), {"profile": "custom", "image--unlisted-choice": image})
    assert isinstance(answer, Granted) is granted


@pytest.mark.parametrize(
    ("who", "gpus", "cpus", "memory"), [("cpsHPCAccess", 2, "16", "128G"), ("everybody", 0, "2", "4G")]
)
def test_the_caps_are_the_original_ones(who: str, gpus: int, cpus: str, memory: str) -> None:
    limits = (POLICY.groups.get(who) or POLICY.everyone).limits
    assert limits is not None
    assert (limits.gpus, format_cpus(limits.millicpu), format_memory(limits.memory_bytes)) == (gpus, cpus, memory)


def test_everything_that_the_custom_profile_offers_is_within_the_caps() -> None:
    options = offer(ROWS[-1])["profile_options"]
    for keys in itertools.product(*(option["choices"] for option in options.values())):
        body = {"profile": "custom", **dict(zip(options, keys, strict=True))}
        assert isinstance(decide(("cpsHPCAccess",), body), Granted), body


def test_the_note_is_for_those_without_the_group() -> None:
    note = "For GPU access, please contact your administrator."
    assert {profile["note"] for profile in offered_profiles((), POLICY)["profiles"]} == {note}
    assert {profile["note"] for profile in offered_profiles(("cpsHPCAccess",), POLICY)["profiles"]} == {None}


def test_jupyter_admin_administers_everybody_logs_in_and_idle_servers_end_after_an_hour() -> None:
    assert is_admin(("jupyter_admin",), POLICY)
    assert not is_admin(("cpsHPCAccess", "Jupyter_Admin", "jupyter_admin "), POLICY)
    assert may_log_in((), POLICY)
    assert POLICY.cull.timeout_s == 3600


def test_the_storage_is_the_original_one() -> None:
    assert POLICY.storage.persist.claim == "jhub-userdir-rwx"
    assert POLICY.storage.shared_claim == "jhub-shared-rwx"
    assert POLICY.storage.shared == ()


def test_changing_the_groups_name_is_one_line_and_everything_follows() -> None:
    text = Path(SHIPPED).read_text(encoding="utf-8")
    assert text.count("cpsHPCAccess") == 1
    renamed = parse_policy(text.replace("cpsHPCAccess", "gpu people"))
    before, after = offered_profiles(("cpsHPCAccess",), POLICY), offered_profiles(("gpu people",), renamed)
    assert before == after
    assert [profile["slug"] for profile in offered_profiles(("cpsHPCAccess",), renamed)["profiles"]] == ["standard"]
    answer = resolve("ada", ("gpu people",), options={"profile": "a100-2"}, running={}, policy=renamed)
    assert isinstance(answer, Granted)
