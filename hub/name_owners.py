"""Whose name is whose: a user name belongs to the person who logged in with it first.

The record is a table of its own in the hub's database. It stays when JupyterHub's user is deleted, as that user's
directory on Persist does: whoever is given the name later must not find the files of the one before.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Column, MetaData, String, Table, Unicode, delete, insert, select
from sqlalchemy.orm import Session

_METADATA = MetaData()
_IDENTITIES = Table(
    "sidecar_identities",
    _METADATA,
    Column("name", Unicode(255), primary_key=True),
    Column("subject", Unicode(255), nullable=False),
    Column("since", String(20), nullable=False),
)


def subject_of(db: Session, name: str) -> tuple[str, str] | None:
    """The subject that ``name`` belongs to and the day since when; ``None`` while it is nobody's."""
    _METADATA.create_all(db.connection())
    row = db.execute(select(_IDENTITIES.c.subject, _IDENTITIES.c.since).where(_IDENTITIES.c.name == name)).one_or_none()
    return (str(row.subject), str(row.since)) if row is not None else None


def record_subject(db: Session, name: str, subject: str) -> None:
    """``name`` belongs to ``subject``, durably. Nothing changes if it is somebody's already."""
    if subject_of(db, name) is None:
        db.execute(insert(_IDENTITIES).values(name=name, subject=subject, since=f"{datetime.now(UTC):%Y-%m-%d}"))
        db.commit()


def release(db: Session, name: str) -> bool:
    """``name`` is nobody's, and the next's who logs in with it; whether it was somebody's."""
    if subject_of(db, name) is None:
        return False
    db.execute(delete(_IDENTITIES).where(_IDENTITIES.c.name == name))
    db.commit()
    return True
