"""`jupyterhub-sidecar identity`: whose user name is whose, for the administrator."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from hub.launch import hub_directory
from hub.text import quoted, visible

# SQLAlchemy is imported where it is used: every command would wait for it.
if TYPE_CHECKING:
    from sqlalchemy.orm import Session

EXIT_USAGE = 2
EXIT_NOBODYS = 3

_name = click.argument("name")
_database = click.option(
    "--db", "url", envvar="HUB_DB", help="The hub's database, such as sqlite:////srv/jupyterhub/jupyterhub.sqlite."
)
_data = click.option(
    "--data", envvar="DATA", default=".data", show_default=True, help="Or the directory of a hub that `up` started."
)


@click.group("identity")
def identity_commands() -> None:
    """User names: each belongs to the person who logged in with it first."""


@identity_commands.command("show")
@_name
@_database
@_data
def show_owner(name: str, url: str | None, data: str) -> None:
    """Say whose NAME is: the sub of the identity provider, and since when.

    \b
    Exit codes:
      0  somebody's
      2  usage, or a database that cannot be read
      3  nobody's
    """
    from hub.name_owners import subject_of

    with _database_at(url, data) as db:
        owner = subject_of(db, name)
    if owner is None:
        click.echo(f"{quoted(name)} is nobody's", err=True)
        sys.exit(EXIT_NOBODYS)
    click.echo(f"{quoted(name)} belongs to the sub {quoted(owner[0])} since {owner[1]}")


@identity_commands.command("release")
@_name
@_database
@_data
def release_name(name: str, url: str | None, data: str) -> None:
    """Free NAME for the next who logs in with it.

    What is on Persist under it stays closed to them, until "owner" is gone from .jupyterhub-sidecar/format.json there.

    \b
    Exit codes:
      0  freed
      2  usage, or a database that cannot be written
      3  nobody's
    """
    from hub.name_owners import release

    with _database_at(url, data) as db:
        freed = release(db, name)
    if not freed:
        click.echo(f"{quoted(name)} is nobody's", err=True)
        sys.exit(EXIT_NOBODYS)
    click.echo(f"{quoted(name)} is free: it belongs to the next who logs in with it")


@contextmanager
def _database_at(url: str | None, data: str) -> Iterator[Session]:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    if url is None:
        path = os.path.join(hub_directory(os.path.abspath(data)), "jupyterhub.sqlite")
        if not os.path.exists(path):  # SQLite would make an empty one
            raise click.UsageError(f"there is no database {path}; say --db or --data")
        url = f"sqlite:///{path}"
    try:
        with Session(create_engine(url)) as db:
            yield db
    except SQLAlchemyError as error:
        click.echo(f"the database cannot be used: {visible(str(error), limit=300)}", err=True)
        sys.exit(EXIT_USAGE)
