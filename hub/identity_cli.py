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


def _text(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter(f"{quoted(name)} is not UTF-8") from error
    return name


_name = click.argument("name", callback=_text)
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
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.orm import Session

    if url is None:
        path = os.path.join(hub_directory(os.path.abspath(data)), "jupyterhub.sqlite")
        _refuse_missing(path)
        url = f"sqlite:///{path}"
    try:
        address = make_url(url)
        if address.get_backend_name() == "sqlite" and address.database:
            _refuse_missing(address.database)
        with Session(create_engine(address)) as db:
            yield db
    except (
        SQLAlchemyError,
        ImportError,
        TypeError,
        ValueError,
    ) as error:  # each for an address that is wrong elsewhere
        click.echo(f"the database cannot be used: {visible(str(error), limit=300)}", err=True)
        sys.exit(EXIT_USAGE)


def _refuse_missing(path: str) -> None:
    """SQLite would make an empty database there."""
    if not path.startswith((":memory:", "file:")) and not os.path.exists(path):
        raise click.UsageError(f"there is no database {visible(path, limit=300)}; say --db or --data")
