"""``~/.persistignore`` in a running sidecar: it has the last word, and is read again when it is edited."""

from __future__ import annotations

from tests.processes import Place, wait_until


def test_the_users_rules_count_at_once_and_what_was_saved_stays(place: Place) -> None:
    for name in ("data/raw/big.bin", "data/clean/a.csv", ".cache/important/key", ".cache/other/x"):
        (place.home / name).parent.mkdir(parents=True, exist_ok=True)
        (place.home / name).write_text(name)
    process = place.start()
    place.flush()
    assert (place.mirror / "data" / "raw" / "big.bin").exists()
    assert not (place.mirror / ".cache").exists()

    (place.home / ".persistignore").write_text("data/raw/\n*.log\n!.cache/important/\n")
    wait_until((place.mirror / ".cache" / "important" / "key").exists, "what is brought back is saved", 10)
    (place.home / "run.log").write_text("noise")
    (place.home / "data" / "raw" / "more.bin").write_text("not this one")
    (place.home / ".cache" / "important" / "late").write_text("watched now")
    (place.home / "notes.md").write_text("this one")
    wait_until((place.mirror / "notes.md").exists, "an ordinary file is saved", 5)
    wait_until(
        (place.mirror / ".cache" / "important" / "late").exists, "what changes in what is brought back is saved", 5
    )
    assert place.flush()["unsaved"] == 0
    saved = {str(path.relative_to(place.mirror)) for path in place.mirror.rglob("*") if path.is_file()}
    assert saved == {
        ".persistignore",
        ".cache/important/key",
        ".cache/important/late",
        "data/raw/big.bin",  # leaving something out deletes nothing
        "data/clean/a.csv",
        "notes.md",
    }
    reasons = {item["path"]: item["reason"] for item in place.status()["skipped"]}
    assert ".persistignore" in reasons["run.log"]
    assert ".persistignore" in reasons["data/raw"]

    (place.home / ".persistignore").write_text("*.log\n")
    wait_until((place.mirror / "data" / "raw" / "more.bin").exists, "what counts again is saved", 10)
    assert place.end(process) == 0


def test_rules_that_cannot_be_used_are_named_and_leave_nothing_else_out(place: Place) -> None:
    (place.home / ".persistignore").symlink_to("/etc/passwd")
    (place.home / "notes.md").write_text("mine")
    process = place.start()
    wait_until((place.mirror / "notes.md").exists, "it is saved", 5)
    assert "persistignore" in place.status()["detail"]
    assert place.end(process) == 0


def test_everything_comes_back_whatever_the_rules_say_now(place: Place) -> None:
    (place.home / ".persistignore").write_text("!.cache/important/\n")
    (place.home / ".cache" / "important").mkdir(parents=True)
    (place.home / ".cache" / "important" / "key").write_text("precious")
    process = place.start()
    assert place.flush()["unsaved"] == 0
    assert place.end(process) == 0
    place.new_home()
    process = place.start()
    assert (place.home / ".cache" / "important" / "key").read_text() == "precious"
    assert place.end(process) == 0
