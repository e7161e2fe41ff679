"""The Shared mounts in the status: each with its name, the access of the policy, its state and its room."""

from __future__ import annotations

from tests.processes import Place, wait_until


def test_each_share_is_told_with_its_state_and_its_room(place: Place) -> None:
    shared = place.top / "shared"
    (shared / "team-a").mkdir(parents=True)
    place.settings = {"SIDECAR_SHARED": "team-a=rw:team-b=ro", "SIDECAR_SHARED_ROOT": str(shared)}
    process = place.start()
    wait_until(lambda: all(share["state"] != "unknown" for share in place.status()["shared"]), "both are known")
    there, gone = place.status()["shared"]
    assert (there["name"], there["access"], there["state"]) == ("team-a", "rw", "ok")
    assert there["free_bytes"] > 0
    assert gone == {"name": "team-b", "access": "ro", "state": "missing", "free_bytes": None}
    assert "Shared     team-a (rw): ok" in place.run("status").stdout
    assert place.end(process) == 0


def test_a_directory_that_is_no_mount_of_its_own_is_a_missing_share(place: Place) -> None:
    shared = place.top / "shared"
    (shared / "team-a").mkdir(parents=True)
    place.mount_persist("tmpfs")
    place.settings = {"SIDECAR_SHARED": "team-a=rw", "SIDECAR_SHARED_ROOT": str(shared)}
    process = place.start()
    wait_until(lambda: [share["state"] for share in place.status()["shared"]] == ["missing"], "it is missing")
    assert place.end(process) == 0


def test_a_share_that_means_nothing_is_a_usage_error(place: Place) -> None:
    for text in ("team-a", "team-a=rx", "a/b=rw", "..=ro"):
        place.settings = {"SIDECAR_SHARED": text}
        result = place.run("run")
        assert (result.returncode, "SIDECAR_SHARED" in result.stderr) == (2, True), text
