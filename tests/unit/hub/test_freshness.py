from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

from hub.admission import judge
from hub.freshness import Freshness, groups_in_doubt
from hub.policy_file import load_policy
from hub.resolve import Granted, Refused


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def fresh(clock: Clock) -> Freshness:
    return Freshness(monotonic=clock, now=lambda: datetime(2026, 5, 4, 10, 41, tzinfo=UTC))


def test_groups_are_beyond_doubt_for_as_long_as_the_setting_says() -> None:
    clock = Clock()
    freshness = fresh(clock)
    freshness.confirmed("mia")
    clock.now_s += 300
    assert freshness.doubt("mia", longest_s=300) is None
    clock.now_s += 1
    assert freshness.doubt("mia", longest_s=300) == (
        "no GPUs now: the groups of mia were confirmed with the identity provider 301 s ago, and not since; "
        "a server without GPUs can be started"
    )


def test_one_failure_is_enough_and_the_next_answer_makes_up_for_it() -> None:
    freshness = fresh(Clock())
    freshness.confirmed("mia")
    freshness.failed("mia", "Connection refused")
    assert freshness.doubt("mia", longest_s=300) == (
        "no GPUs now: the groups of mia could not be confirmed with the identity provider at 10:41 UTC: "
        "Connection refused; a server without GPUs can be started"
    )
    freshness.confirmed("mia")
    assert freshness.doubt("mia", longest_s=300) is None


def test_nothing_is_known_after_a_start_or_of_somebody_forgotten() -> None:
    freshness = fresh(Clock())
    assert "since the hub was started" in str(freshness.doubt("mia", longest_s=300))
    freshness.confirmed("mia")
    freshness.forget("mia")
    assert freshness.doubt("mia", longest_s=300) is not None


def test_the_reason_is_one_readable_line_whatever_the_provider_said() -> None:
    freshness = fresh(Clock())
    freshness.failed("m\u202eia\n", "a\nb" * 1000)
    told = freshness.doubt("m\u202eia\n", longest_s=300)
    assert told is not None
    assert told.isprintable()
    assert len(told) <= 400


def test_an_authenticator_that_asks_nobody_leaves_no_doubt() -> None:
    assert groups_in_doubt(SimpleNamespace(name="mia")) is None
    assert groups_in_doubt(SimpleNamespace(name="mia", authenticator=object())) is None
    doubting = SimpleNamespace(groups_in_doubt=lambda name: f"not {name}")
    assert groups_in_doubt(SimpleNamespace(name="mia", authenticator=doubting)) == "not mia"


def test_groups_in_doubt_yield_no_gpus_and_everything_else() -> None:
    user = SimpleNamespace(
        name="mia",
        groups=[SimpleNamespace(name="cpsHPCAccess")],
        spawners={},
        orm_spawners={},
        authenticator=SimpleNamespace(groups_in_doubt=lambda _name: "no GPUs now: …"),
    )
    for profile in ("a100-1", "a100-2", "custom"):
        answer = judge(user, "", {"profile": profile}, load_policy())
        assert answer == Refused("no GPUs now: …", "forbidden")
    assert isinstance(judge(user, "", {"profile": "cpu-basic"}, load_policy()), Granted)
    assert isinstance(judge(user, "", {"profile": "custom", "gpus": "0"}, load_policy()), Granted)
    refused = judge(user, "", {"profile": "custom", "gpus": "7"}, load_policy())
    assert isinstance(refused, Refused)
    assert "is none of: 0, 1, 2" in refused.reason
