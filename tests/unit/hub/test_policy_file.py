from __future__ import annotations

import time
from pathlib import Path

import pytest

from hub.policy_file import SHIPPED, PolicyError, check_file, load_policy, parse_policy
from tests.unit.hub.policies import SMALL

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


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cull:", "line 5: cull: has no value"),
        ("cull: {timeout_s: }", "line 5: cull.timeout_s: has no value"),
        ("groups: {7: {admin: true}}", "line 5: groups.7: must be text; put it in quotes"),
        ("groups: {a: {admin: 1}}", "line 5: groups.a.admin: must be true or false"),
        ("groups: [a]", "line 5: groups: must be a mapping, such as {key: value}"),
        ("groups: {a: [b]}", "line 5: groups.a: must be a mapping, such as {key: value}"),
        ("storage: {grace_s: 1.5}", "line 5: storage.grace_s: must be a whole number"),
        ("storage: {restore: on}", "line 5: storage.restore: must be 'auto' or 'off'"),
        ("storage: {shared: a}", "line 5: storage.shared: must be a list, such as [a, b]"),
        ("login: [1]", "line 5: login: must be everyone, or a list of groups such as [staff, students]"),
        (
            'groups: {a: {note: "\\ud800"}}',
            "line 5: groups.a.note: must be one line without control or invisible characters",
        ),
        (
            "images: {allow: [jupyter/*]}",
            "line 5: images.allow.0: 'jupyter/*' names no registry: write it out, as in docker.io/jupyter/*",
        ),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_file(text: str, said: str) -> None:
    assert problems(f"{SMALL}{text}\n") == [said]


def test_an_unquoted_off_is_off() -> None:
    policy = parse_policy(f"{SMALL}storage: {{restore: off}}\ngpu_check: {{at_spawn: off, frameworks: off}}\n")
    assert policy.storage.restore == "off"
    assert (policy.gpu_check.at_spawn, policy.gpu_check.frameworks) == ("off", "off")


@pytest.mark.parametrize(
    ("size", "limits", "fits"),
    [
        ("cpus: 2, memory: 2G, gpus: 0", "gpus: 0, cpus: 2, memory: 2G", True),
        ("cpus: 2, memory: 2G, gpus: 0", "gpus: 8, cpus: 1.999, memory: 9G", False),
        ("cpus: 2, memory: 2G, gpus: 0", "gpus: 0, cpus: 2, memory: 2047M", False),
        ("cpus: 2, memory: 2G, gpus: 1", "gpus: 0, cpus: 2, memory: 2G", False),
        ("cpus: 2, memory: 2G, choices: {gpus: {values: [2, 1], default: 2}}", "gpus: 1, cpus: 2, memory: 2G", True),
    ],
)
def test_limits_below_every_profile_of_a_group_are_an_error(size: str, limits: str, fits: bool) -> None:
    profile = f'  two: {{display_name: Two, image: "a:1", {size}}}\n'
    text = f"{SMALL}{profile}groups:\n  a:\n    profiles: [two]\n    limits: {{{limits}}}\n"
    if fits:
        parse_policy(text)
    else:
        (problem,) = problems(text)
        assert problem.startswith("line 9: groups.a.limits: allow none of the profiles offered: two needs 2 cores")


def test_limits_below_some_profiles_are_none_and_the_default_among_them_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        SMALL
        + '  two: {display_name: Two, image: "a:1", cpus: 2, memory: 2G, gpus: 2}\n'
        + '  three: {display_name: Three, image: "a:1", cpus: 2, memory: 2G, gpus: 2}\n'
        + "groups:\n  a: {profiles: [two, one], limits: {gpus: 1, cpus: 2, memory: 2G}}\n"
    )
    assert [str(warning) for warning in check_file(str(file)).warnings] == [
        "line 6: profiles.three: is offered to nobody",
        "line 8: groups.a.limits: do not allow the default profile: two needs 2 cores, 2 GB memory and 2 GPUs",
    ]
    assert check_file(SHIPPED).warnings == ()


def test_merge_keys_are_no_keys_that_are_there_twice() -> None:
    text = SMALL.replace("  one: {", "  one: &one {") + "  two: {<<: *one, display_name: Two}\n"
    assert parse_policy(text).profiles["two"].display_name == "Two"


@pytest.mark.parametrize(
    "value",
    ["!!int ''", "!!float ''", "!!int abc", "!!bool zzz", "!!bool [1]", "!!timestamp zzz", '"\\UFFFFFFFF"',
     '"\\U00110000"', "1" + ":1" * 3000 + ".5", "9" * 6000, "!!int [a]"],
)  # fmt: skip
def test_a_value_that_is_none_is_an_error_with_its_line(value: str) -> None:
    (problem,) = problems(f"a: b\nx: {value}\n")
    assert problem.startswith("line 2: is not YAML: "), problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    "line", ["a{n}: &a{n} {{<<: [{before}]}}", "? &a{n} [{before}]\n: 1"], ids=["merge keys", "keys that are lists"]
)
def test_a_few_lines_that_stand_for_very_many_are_refused_at_once(line: str) -> None:
    lines = ["a0: &a0 {k: 1}"]
    lines += [line.format(n=n, before=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 12)]
    began = time.process_time()
    (problem,) = problems("\n".join(lines) + "\n")
    assert time.process_time() - began < 10
    assert "is not YAML: " in problem
