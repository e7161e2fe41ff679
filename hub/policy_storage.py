"""The ``storage`` section of the policy: the tiers beyond the pod's own disk, and how its end saves to them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hub.fields import AutoOrOff, Claim, GroupName, Seconds, Slug, Strict
from hub.names import DirectoryScheme
from sidecar.config import LONGEST_RETENTION_DAYS, SHORTEST_RETENTION_DAYS


class Persist(Strict):
    """The tier that stays, one directory per user."""

    claim: Claim = Field(default="jhub-userdir-rwx", description="The volume claim; its root belongs to group 100")
    directory: DirectoryScheme = Field(
        default="slug",
        description=(
            "How a user's directory is named. slug: every name has a directory of its own. For directories that are "
            "there already, as they were named: safe or escape ({username} under KubeSpawner's slug_scheme), or raw "
            "({unescaped_username}, $(JUPYTERHUB_USER)); names that could meet there are refused"
        ),
    )


class Share(Strict):
    """A directory of Shared, for some groups."""

    name: Slug = Field(description="The directory, and its name below Shared; again, for other groups")
    groups: tuple[GroupName, ...] = Field(default=(), description="Nobody else sees it; empty for everybody")
    access: Literal["rw", "ro"] = Field(default="rw", description="rw: may write; of two entries rw counts")


class Retention(Strict):
    """How long what was replaced or deleted stays."""

    days: int = Field(
        default=365,
        strict=True,
        ge=SHORTEST_RETENTION_DAYS,
        le=LONGEST_RETENTION_DAYS,
        description=(
            "Earlier versions of a file that goes on changing are thinned: one a minute after ten minutes, one in ten "
            "minutes after an hour, one a day after a day, one a week after 30 days, and none older than so many days "
            "but the last"
        ),
    )


class Storage(Strict):
    """The tiers beyond the pod's own disk, and how its end saves to them."""

    persist: Persist = Field(default=Persist(), description="The tier that stays, one directory per user")
    shared_claim: Claim = Field(default="jhub-shared-rwx", description="The volume claim of Shared")
    shared: tuple[Share, ...] = Field(
        default=(), description="Directories of Shared by group; empty: everybody has the whole claim"
    )
    restore: AutoOrOff = Field(default="auto", description="auto: saved work comes back at the start")
    grace_s: Seconds = Field(
        default=120, description="Seconds from the notice of a server's end to its last moment: the time to save"
    )
    retention: Retention = Field(default=Retention(), description="How long what was replaced or deleted stays")
