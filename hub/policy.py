"""The policy: who is offered which profiles, with which caps, images and storage.

In a ``Policy`` every default is one of its choices, and every image parses. ``hub.policy_file`` reads one from YAML and
also refuses what contradicts itself (``hub.policy_rules``); whoever builds one by hand gets a profile that is named but
not there passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from hub.fields import (
    BackgroundOrOff,
    Gpus,
    GroupName,
    ImageText,
    Line,
    MemoryBytes,
    MemoryLimit,
    Millicpu,
    MillicpuLimit,
    PatternText,
    QuickOrOff,
    Seconds,
    Slug,
    Strict,
    is_group_name,
)
from hub.placement import LabelKey, LabelValue, ResourceName, Toleration
from hub.policy_storage import Storage
from hub.quantity import Size

Value = TypeVar("Value")


class Limits(Strict):
    """What one user may have over all their servers together."""

    gpus: Gpus = Field(description="GPUs of all the user's servers together")
    millicpu: MillicpuLimit = Field(alias="cpus", description="Cores of all the user's servers together")
    memory_bytes: MemoryLimit = Field(alias="memory", description="Memory of all the user's servers together")

    @property
    def size(self) -> Size:
        return Size(millicpu=self.millicpu, memory_bytes=self.memory_bytes, gpus=self.gpus)


class Group(Strict):
    """What members of one group of the identity provider get. Its name is compared exactly."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"required": ["profiles"], "properties": {"profiles": {"minItems": 1}}},
            "then": {"required": ["limits"]},
        }
    )

    profiles: tuple[Slug, ...] = Field(default=(), description="Profiles offered; the first is the default")
    limits: Limits | None = Field(
        default=None,
        description="The most a member has over all servers together; needed as soon as there are profiles",
    )
    note: Line | None = Field(default=None, description="Shown with the profiles")
    admin: StrictBool = Field(default=False, description="Members administer the hub")

    @model_validator(mode="after")
    def _limited(self) -> Group:
        if self.profiles and self.limits is None:
            raise PydanticCustomError("limits", "profiles need limits: {{gpus: …, cpus: …, memory: …}}")
        return self


class Everyone(Strict):
    """What those get who are in no group with profiles."""

    profiles: tuple[Slug, ...] = Field(description="Profiles offered; the first is the default")
    limits: Limits = Field(description="The most one user has over all servers together")
    note: Line | None = Field(default=None, description="Shown with the profiles")


class Choices(Strict, Generic[Value]):
    """Values to choose from."""

    values: tuple[Value, ...] = Field(
        min_length=1, description="What can be chosen, in this order", json_schema_extra={"uniqueItems": True}
    )
    default: Value = Field(description="The one that is selected at first")

    @model_validator(mode="after")
    def _consistent(self) -> Choices[Value]:
        if self.default not in self.values:
            raise PydanticCustomError("default", "the default is none of the values")
        if len(set(self.values)) != len(self.values):
            raise PydanticCustomError("twice", "a value is there twice")
        return self


class GpuChoices(Choices[Gpus]):
    """Numbers of GPUs to choose from."""


class CpuChoices(Choices[Millicpu]):
    """Numbers of cores to choose from."""


class MemoryChoices(Choices[MemoryBytes]):
    """Amounts of memory to choose from."""


class ListedImage(Strict):
    """An image with the name that users see."""

    display_name: Line = Field(description="What users see")
    image: ImageText = Field(description="The image, with its tag or digest")


class ImageChoices(Strict):
    """Images to choose from."""

    values: dict[Slug, ListedImage] = Field(min_length=1, description="What can be chosen, in this order, by key")
    default: Slug = Field(description="The key of the one that is selected at first")

    @model_validator(mode="after")
    def _consistent(self) -> ImageChoices:
        if self.default not in self.values:
            raise PydanticCustomError("default", "the default is none of the values")
        return self


class ProfileChoices(Strict):
    """What a user may choose in this profile; what is not here is fixed beside it."""

    image: ImageChoices | None = Field(default=None, description="Images")
    gpus: GpuChoices | None = Field(default=None, description="Numbers of GPUs")
    millicpu: CpuChoices | None = Field(default=None, alias="cpus", description="Numbers of cores")
    memory_bytes: MemoryChoices | None = Field(default=None, alias="memory", description="Amounts of memory")


def _either_fixed_or_chosen() -> list[Any]:
    """JSON Schema for: each of the four is in the profile or under its choices, and not in both."""
    keys = ("image", "cpus", "memory", "gpus")
    return [
        {
            "oneOf": [
                {"required": [key]},
                {"required": ["choices"], "properties": {"choices": {"type": "object", "required": [key]}}},
            ]
        }
        for key in keys
    ]


class Profile(Strict):
    """One entry of the list a user chooses from. Image, cpus, memory and gpus are either fixed or under choices."""

    model_config = ConfigDict(json_schema_extra={"allOf": _either_fixed_or_chosen()})

    display_name: Line = Field(description="What users see")
    description: Line | None = Field(default=None, description="A line below the name")
    image: ImageText | None = Field(default=None, description="The image, with its tag or digest")
    millicpu: Millicpu | None = Field(default=None, alias="cpus", description="Cores: guaranteed, and no more")
    memory_bytes: MemoryBytes | None = Field(
        default=None, alias="memory", description="Memory: guaranteed, and no more"
    )
    gpus: Gpus | None = Field(default=None, description="GPUs; 0 for none")
    choices: ProfileChoices = Field(
        default=ProfileChoices(), description="What users choose, in place of a fixed value"
    )
    custom_image: StrictBool = Field(
        default=False, description="Any image that images.allow allows may be entered, with its tag or digest"
    )
    gpu_resource: ResourceName = Field(
        default="nvidia.com/gpu", description="What Kubernetes calls these GPUs; a MIG slice has a name of its own"
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default={}, description="Labels that a node must have, as in a pod's nodeSelector"
    )
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints that do not keep it away from a node, as in a pod's tolerations"
    )

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

    allow: tuple[PatternText, ...] = Field(
        default=(),
        description=(
            "Registry and path, such as quay.io/jupyter/*: * stands for one part or a piece of it, a last part ** for "
            "any depth. Tags and digests are free"
        ),
    )


class GpuCheck(Strict):
    """What is checked when a profile with GPUs starts."""

    at_spawn: QuickOrOff = Field(default="quick", description="quick: a verdict before the notebook starts")
    frameworks: BackgroundOrOff = Field(
        default="background", description="background: the image's own PyTorch and TensorFlow are tried once it runs"
    )
    on_failure: Literal["warn", "block"] = Field(default="warn", description="block: a sick GPU stops the start")


class Cull(Strict):
    """When idle servers are stopped."""

    timeout_s: Seconds = Field(default=3600, description="Seconds without activity after which a server is stopped")


def _login(value: object) -> object:
    if value == "everyone" or (isinstance(value, list | tuple) and value and all(map(is_group_name, value))):
        return value
    raise ValueError("must be everyone, or a list of groups such as [staff, students]")


Login = Annotated[
    Literal["everyone"] | tuple[GroupName, ...],
    BeforeValidator(_login),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "everyone"},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1, "maxLength": 255}},
            ]
        }
    ),
]


class Policy(Strict):
    """Who gets what."""

    groups: dict[GroupName, Group] = Field(
        default={},
        description=(
            "Groups by the name that the identity provider gives them. A member of several gets the profiles of all "
            "and the largest of each limit"
        ),
    )
    everyone: Everyone = Field(description="What those get who are in no group with profiles")
    profiles: dict[Slug, Profile] = Field(min_length=1, description="What can be offered, by a name of your choice")
    images: Images = Field(default=Images(), description="Which images users may enter")
    storage: Storage = Field(default=Storage(), description="The tiers beyond the pod's own disk")
    gpu_check: GpuCheck = Field(default=GpuCheck(), description="What is checked when a profile with GPUs starts")
    cull: Cull = Field(default=Cull(), description="When idle servers are stopped")
    login: Login = Field(default="everyone", description="Who may log in: everyone, or members of a list of groups")


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema of the policy file, for editors."""
    schema = Policy.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(schema)}


def _plain(node: Any) -> Any:
    """Without the titles that are made from names in the code, and without null, which no file may have."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kinds = node.get("anyOf", [])
    if {"type": "null"} in kinds:
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        others = [kind for kind in kinds if kind != {"type": "null"}]
        return _plain({**(others[0] if len(others) == 1 else {"anyOf": others}), **rest})
    if "patternProperties" in node:
        node = {"additionalProperties": False, **node}
    # Of a property that is called title the value is a schema.
    return {
        key: _plain(value)
        for key, value in node.items()
        if key != "title" or "properties" in node or not isinstance(value, str)
    }
