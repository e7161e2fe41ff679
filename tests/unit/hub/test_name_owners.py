from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from hub.cli import main
from hub.name_owners import record_subject, release, subject_of


def test_a_name_belongs_to_whoever_had_it_first_until_it_is_released(tmp_path: Path) -> None:
    def session() -> Session:
        return Session(create_engine(f"sqlite:///{tmp_path}/hub.sqlite"))

    with session() as db:
        assert subject_of(db, "mia") is None
        record_subject(db, "mia", "1f")
        record_subject(db, "mia", "2e")
    with session() as db:  # another process, later
        owner = subject_of(db, "mia")
        assert owner is not None
        assert owner[0] == "1f"
        assert subject_of(db, "Mia") is None
        assert release(db, "mia")
        assert not release(db, "mia")
        record_subject(db, "mia", "2e")
    with session() as db:
        owner = subject_of(db, "mia")
        assert owner is not None
        assert owner[0] == "2e"


def test_an_administrator_sees_whose_a_name_is_and_frees_it(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with Session(create_engine(f"sqlite:///{tmp_path}/hub/jupyterhub.sqlite")) as db:
        record_subject(db, "mia", "1f\u202e")

    def command(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["identity", *words, "--data", str(tmp_path)])
        return result.exit_code, result.output

    code, said = command("show", "mia")
    assert code == 0
    assert "'mia' belongs to the sub '1f\\u202e' since 20" in said
    assert command("release", "mia") == (0, "'mia' is free: it belongs to the next who logs in with it\n")
    assert command("release", "mia") == (3, "'mia' is nobody's\n")
    assert command("show", "mia") == (3, "'mia' is nobody's\n")


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["identity", "show", "mia", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").write_text("no database")
    result = CliRunner().invoke(main, ["identity", "show", "mia", "--db", f"sqlite:///{tmp_path}/x"])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)
