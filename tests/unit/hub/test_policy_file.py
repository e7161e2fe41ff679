from __future__ import annotations

from pathlib import Path

import pytest

from hub.policy import json_schema
from hub.policy_file import SHIPPED, PolicyError, load_policy, parse_policy
from hub.quantity import parse_memory

GIB = 1024**3

# The table of the original deployment: display name, who, cores, memory, GPUs.
TABLE = [
    ("standard", "💻 Standard Notebook Environment", "everyone", 2, "4G", 0),
    ("cpu-basic", "💻 CPU Only (Basic)", "cpsHPCAccess", 2, "4G", 0),
    ("a100-1", "🚀 Single A100 GPU", "cpsHPCAccess", 8, "32G", 1),
    ("a100-2", "🔥 Dual A100 GPUs", "cpsHPCAccess", 16, "64G", 2),
]


@pytest.mark.parametrize(("slug", "display_name", "who", "cpus", "memory", "gpus"), TABLE)
def test_the_shipped_policy_is_the_original_deployment(
    slug: str, display_name: str, who: str, cpus: int, memory: str, gpus: int
) -> None:
    policy = load_policy()
    profile = policy.profiles[slug]
    assert profile.display_name == display_name
    assert (profile.millicpu, profile.memory_bytes, profile.gpus) == (cpus * 1000, parse_memory(memory), gpus)
    offered = policy.everyone.profiles if who == "everyone" else policy.groups[who].profiles
    assert slug in offered


def test_the_shipped_custom_profile_has_the_original_choices_and_defaults() -> None:
    policy = load_policy()
    custom = policy.profiles["custom"]
    assert custom.display_name == "⚙️ Custom Configuration"
    assert custom.custom_image
    choices = custom.choices
    assert choices.image
    assert [image.display_name for image in choices.image.values.values()] == ["PyTorch", "TensorFlow", "Data Science"]
    assert choices.gpus
    assert (choices.gpus.values, choices.gpus.default) == ((0, 1, 2), 1)
    assert choices.millicpu
    assert (choices.millicpu.values, choices.millicpu.default) == ((2000, 4000, 8000, 16000), 8000)
    assert choices.memory_bytes
    assert [value // GIB for value in choices.memory_bytes.values] == [4, 8, 16, 32, 64, 128]
    assert choices.memory_bytes.default == 32 * GIB


def test_the_shipped_policy_has_the_original_groups_caps_note_and_cull() -> None:
    policy = load_policy()
    hpc = policy.groups["cpsHPCAccess"]
    assert hpc.profiles == ("cpu-basic", "a100-1", "a100-2", "custom")
    assert hpc.limits
    assert (hpc.limits.gpus, hpc.limits.millicpu, hpc.limits.memory_bytes) == (2, 16000, 128 * GIB)
    assert policy.groups["jupyter_admin"].admin
    everyone = policy.everyone
    assert everyone.profiles == ("standard",)
    assert (everyone.limits.gpus, everyone.limits.millicpu, everyone.limits.memory_bytes) == (0, 2000, 4 * GIB)
    assert everyone.note == "For GPU access, please contact your administrator."
    assert policy.profiles["standard"].image == "quay.io/jupyter/pytorch-notebook:2025-11-06"
    assert policy.cull.timeout_s == 3600
    assert policy.storage.persist.claim == "jhub-userdir-rwx"
    assert policy.storage.shared_claim == "jhub-shared-rwx"


BROKEN = """\
groups:
  a: {profiles: [standard, gone], limits: {gpus: -1, cpus: many, memory: 4Q}}
  b: {profiles: [standard]}
  a: {admin: "yes"}
everyone: {profiles: [standard, gone2], limits: {gpus: true, cpus: 2}, extra: 1}
profiles:
  standard: {display_name: "x\\ny", image: "host:5000/img", cpus: 2, memory: 4G, gpus: 0}
  BAD--SLUG: {display_name: x, image: "a:1", cpus: 2, memory: 4G, gpus: 0}
  half: {display_name: x, gpus: 1, choices: {gpus: {values: [1, 2], default: 1}}}
  default:
    display_name: x
    image: "a:1"
    cpus: 2
    memory: 4G
    choices: {gpus: {values: [1, 2], default: 3}}
images: {allow: ["*", "quay.io/a:1"]}
storage: {grace_s: 0, shared: [{name: a/b}]}
cull: {timeout_s: 1.5}
login: nobody
unknown: 1
"""


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (4, "groups.a"),
        (4, "groups.a.admin"),
        (3, "groups.b"),
        (5, "everyone.profiles.1"),
        (5, "everyone.limits.gpus"),
        (5, "everyone.limits.memory"),
        (5, "everyone.extra"),
        (7, "profiles.standard.display_name"),
        (7, "profiles.standard.image"),
        (8, "profiles.BAD--SLUG"),
        (9, "profiles.half"),
        (15, "profiles.default.choices.gpus"),
        (16, "images.allow.0"),
        (16, "images.allow.1"),
        (17, "storage.grace_s"),
        (17, "storage.shared.0.name"),
        (18, "cull.timeout_s"),
        (20, "unknown"),
    ],
)
def test_every_error_is_reported_at_once_with_its_line_and_key(line: int, key: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(BROKEN, "p.yaml")
    found = [(problem.line, problem.key) for problem in caught.value.problems]
    assert (line, key) in found
    assert all(str(problem).isprintable() for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must have groups"),
        ("[1]", "must have groups"),
        ("a: [", "is not YAML"),
        ("a: !!python/object:os.system {}", "is not YAML"),
        ("a: \t b: c", "is not YAML"),
        ("profiles: {}", "everyone: is missing"),
        ("{1: 2}", "everyone: is missing"),
        ("a: &a [*a]", "everyone: is missing"),
        ("? [a, b]\n: c", "is not YAML"),
    ],
)
def test_what_is_no_policy_at_all_is_one_clear_error(text: str, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_policy_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "missing", tmp_path, binary):
        with pytest.raises(PolicyError, match=r"cannot be read|is not UTF-8"):
            load_policy(str(path))


def test_the_schema_describes_every_section_of_the_file() -> None:
    schema = json_schema()
    sections = {"groups", "everyone", "profiles", "images", "storage", "gpu_check", "cull", "login"}
    assert set(schema["properties"]) == sections
    assert schema["additionalProperties"] is False


def test_changing_a_groups_name_is_one_line() -> None:
    text = Path(SHIPPED).read_text(encoding="utf-8")
    renamed = text.replace("  cpsHPCAccess:", "  gpu-people:")
    assert sum(old != new for old, new in zip(text.splitlines(), renamed.splitlines(), strict=True)) == 1
    assert parse_policy(renamed).groups["gpu-people"].profiles == ("cpu-basic", "a100-1", "a100-2", "custom")
