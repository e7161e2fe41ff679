"""The policy: who is offered which profiles, with which caps, images and storage.

In a ``Policy`` every default is one of its choices, and every image parses. ``hub.policy_file`` reads one from YAML and
also refuses a profile that is named but not there; whoever builds one by hand gets such names passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from hub.images import parse_image, parse_pattern
from hub.quantity import Size, parse_memory, parse_millicpu

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _slug(text: str) -> str:
    # The form's field names join profile and option with "--".
    if not _SLUG.fullmatch(text) or len(text) > 63:
        raise ValueError("must be small letters, digits and single hyphens, at most 63")
    return text


def _image(text: str) -> str:
    parse_image(text)
    return text


def _pattern(text: str) -> str:
    parse_pattern(text)
    return text


_CORES_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}], "examples": [2, 0.5, "500m"]}
_MEMORY_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}], "examples": ["4G", "512M"]}

Slug = Annotated[str, AfterValidator(_slug)]
ImageText = Annotated[str, AfterValidator(_image)]
PatternText = Annotated[str, AfterValidator(_pattern)]
Millicpu = Annotated[int, BeforeValidator(parse_millicpu), WithJsonSchema(_CORES_SCHEMA)]
MemoryBytes = Annotated[int, BeforeValidator(parse_memory), WithJsonSchema(_MEMORY_SCHEMA)]
Gpus = Annotated[StrictInt, Field(ge=0, le=1024)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
Seconds = Annotated[StrictInt, Field(gt=0, le=31_536_000)]
Value = TypeVar("Value")


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Strict):
    """What one user may have over all their servers together."""

    gpus: Gpus = Field(description="GPUs of all the user's servers together")
    millicpu: Millicpu = Field(alias="cpus", description="Cores of all the user's servers together")
    memory_bytes: MemoryBytes = Field(alias="memory", description="Memory of all the user's servers together")

    @property
    def size(self) -> Size:
        return Size(millicpu=self.millicpu, memory_bytes=self.memory_bytes, gpus=self.gpus)


class Group(Strict):
    """What members of one group of the identity provider get. Its name is compared exactly."""

    profiles: tuple[Slug, ...] = Field(default=(), description="Profiles offered; the first is the default")
    limits: Limits | None = Field(default=None, description="Needed as soon as there are profiles")
    note: Line | None = Field(default=None, description="Shown with the profiles")
    admin: StrictBool = Field(default=False, description="Members administrate the hub")

    @model_validator(mode="after")
    def _limited(self) -> Group:
        if self.profiles and self.limits is None:
            raise PydanticCustomError("limits", "profiles need limits: {{gpus: …, cpus: …, memory: …}}")
        return self


class Everyone(Strict):
    """What those get who are in no group with profiles."""

    profiles: tuple[Slug, ...] = Field(description="Profiles offered; the first is the default")
    limits: Limits
    note: Line | None = Field(default=None, description="Shown with the profiles")


class Choices(Strict, Generic[Value]):
    """Values to choose from."""

    values: tuple[Value, ...] = Field(min_length=1)
    default: Value

    @model_validator(mode="after")
    def _consistent(self) -> Choices[Value]:
        if self.default not in self.values:
            raise PydanticCustomError("default", "the default is none of the values")
        if len(set(self.values)) != len(self.values):
            raise PydanticCustomError("twice", "a value is there twice")
        return self


class ListedImage(Strict):
    """An image with the name that users see."""

    display_name: Line
    image: ImageText


class ImageChoices(Strict):
    """Images to choose from."""

    values: dict[Slug, ListedImage] = Field(min_length=1)
    default: Slug

    @model_validator(mode="after")
    def _consistent(self) -> ImageChoices:
        if self.default not in self.values:
            raise PydanticCustomError("default", "the default is none of the values")
        return self


class ProfileChoices(Strict):
    """What a user may choose in this profile; what is not here is fixed beside it."""

    image: ImageChoices | None = None
    gpus: Choices[Gpus] | None = None
    millicpu: Choices[Millicpu] | None = Field(default=None, alias="cpus")
    memory_bytes: Choices[MemoryBytes] | None = Field(default=None, alias="memory")


class Profile(Strict):
    """One entry of the list a user chooses from."""

    display_name: Line
    description: Line | None = None
    image: ImageText | None = None
    millicpu: Millicpu | None = Field(default=None, alias="cpus")
    memory_bytes: MemoryBytes | None = Field(default=None, alias="memory")
    gpus: Gpus | None = None
    choices: ProfileChoices = ProfileChoices()
    custom_image: StrictBool = Field(default=False, description="Any image that images.allow allows may be entered")

    @model_validator(mode="after")
    def _complete(self) -> Profile:
        problems = []
        for key, field in (("image", "image"), ("cpus", "millicpu"), ("memory", "memory_bytes"), ("gpus", "gpus")):
            fixed, chosen = getattr(self, field) is not None, getattr(self.choices, field) is not None
            if fixed == chosen:
                problems.append(f"{key} is both fixed and under choices" if fixed else f"{key} is missing")
        if problems:
            raise PydanticCustomError("incomplete", "{problems}", {"problems": "; ".join(problems)})
        if self.custom_image and self.choices.image is None:
            raise PydanticCustomError("custom", "custom_image needs a list of images under choices")
        return self


class Images(Strict):
    """Which images users may enter where a profile has ``custom_image``."""

    allow: tuple[PatternText, ...] = Field(default=(), description="Such as quay.io/jupyter/*")


class Persist(Strict):
    """The tier that stays, one directory per user."""

    claim: Line = "jhub-userdir-rwx"


class Share(Strict):
    """A directory of Shared, for some groups."""

    name: Slug
    groups: tuple[str, ...] = Field(default=(), description="Nobody else sees it; empty for everybody")
    access: Literal["rw", "ro"] = "rw"


class Storage(Strict):
    """The tiers beyond the pod's own disk, and how its end saves to them."""

    persist: Persist = Persist()
    shared_claim: Line = "jhub-shared-rwx"
    shared: tuple[Share, ...] = Field(default=(), description="Empty: everybody has the whole claim")
    restore: Literal["auto", "off"] = Field(default="auto", description="Bring saved work back at start")
    grace_s: Seconds = Field(default=120, description="From the notice of a server's end to its last moment")


class GpuCheck(Strict):
    """What is checked when a profile with GPUs starts."""

    at_spawn: Literal["quick", "off"] = "quick"
    frameworks: Literal["background", "off"] = "background"
    on_failure: Literal["warn", "block"] = Field(default="warn", description="block: a sick GPU stops the start")


class Cull(Strict):
    """When idle servers are stopped."""

    timeout_s: Seconds = 3600


class Policy(Strict):
    """The whole policy file."""

    groups: dict[str, Group] = {}
    everyone: Everyone
    profiles: dict[Slug, Profile] = Field(min_length=1)
    images: Images = Images()
    storage: Storage = Storage()
    gpu_check: GpuCheck = GpuCheck()
    cull: Cull = Cull()
    login: Literal["everyone"] | tuple[str, ...] = Field(default="everyone", description="Who may log in: or groups")


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema of the policy file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema(by_alias=True)}
