"""The kinds of value in a policy file: how each is read, and how its JSON Schema describes it to an editor.

The schema refuses what the field refuses, as far as a regular expression can say it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, WithJsonSchema

from hub.images import PATTERN_REGEX, REFERENCE_REGEX, parse_image, parse_pattern
from hub.quantity import CPUS_REGEX, MEMORY_REGEX, QuantityError, parse_memory, parse_millicpu

_SLUG_REGEX = r"^[a-z0-9]+(-[a-z0-9]+)*$"
_SLUG_LENGTH = 63

# Control characters, line separators, and what is not seen but reorders or hides what is. The joiners U+200C and U+200D
# stay: Persian and many emoji need them.
_LINE_REGEX = (
    r"^[^\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+$"
)
_LINE_LENGTH = 500
_GROUP_LENGTH = 255  # as in JupyterHub's database

_CLAIM_REGEX = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"  # a DNS subdomain, RFC 1123
_CLAIM_LENGTH = 253

_LEAST_MEMORY_BYTES = 1024**2


class Strict(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _slug(text: str) -> str:
    # The form's field names join profile and option with "--".
    if not re.fullmatch(_SLUG_REGEX, text) or len(text) > _SLUG_LENGTH:
        raise ValueError(f"must be small letters, digits and single hyphens, at most {_SLUG_LENGTH}")
    return text


def _line(text: str) -> str:
    if not 0 < len(text) <= _LINE_LENGTH:
        raise ValueError(f"must have 1 to {_LINE_LENGTH} characters")
    if not re.fullmatch(_LINE_REGEX, text) or not _encodes(text):
        raise ValueError("must be one line without control or invisible characters")
    return text


def is_group_name(value: object) -> bool:
    """Whether a group of JupyterHub can be called so."""
    return isinstance(value, str) and 0 < len(value) <= _GROUP_LENGTH and _encodes(value)


def _group(text: str) -> str:
    if not is_group_name(text):
        raise ValueError(f"a group's name has 1 to {_GROUP_LENGTH} characters")
    return text


def _encodes(text: str) -> bool:
    # YAML can write half of a surrogate pair. Not in the regular expression: for JavaScript each emoji is two halves.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _claim(text: str) -> str:
    if not re.fullmatch(_CLAIM_REGEX, text) or len(text) > _CLAIM_LENGTH:
        raise ValueError("must be a claim's name: small letters, digits, hyphens and dots")
    return text


def _image(text: str) -> str:
    parse_image(text)
    return text


def _pattern(text: str) -> str:
    parse_pattern(text)
    return text


def _some_millicpu(value: object) -> int:
    millicpu = parse_millicpu(value)
    if not millicpu:
        # KubeSpawner takes a limit of 0 for none at all.
        raise QuantityError("must be above 0")
    return millicpu


def _some_memory(value: object) -> int:
    size_bytes = parse_memory(value)
    if size_bytes < _LEAST_MEMORY_BYTES:
        raise QuantityError("must be at least 1M; write the unit, as in 4G")
    return size_bytes


def _off(value: object) -> object:
    # An unquoted off is false in YAML 1.1.
    return "off" if value is False else value


def _text(*, pattern: str = "", most: int = 0, examples: tuple[str, ...] = ()) -> WithJsonSchema:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if pattern:
        schema["pattern"] = pattern
    if most:
        schema["maxLength"] = most
    if examples:
        schema["examples"] = list(examples)
    return WithJsonSchema(schema)


def _quantity(number: dict[str, Any], regex: str, examples: list[int | float | str]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [number, {"type": "string", "pattern": regex}], "examples": examples})


_CORES: list[int | float | str] = [2, 0.5, "500m"]
_MEMORY: list[int | float | str] = ["4G", "512M"]
_SOME_CPUS_REGEX = "^(?![0.]+m?$)" + CPUS_REGEX.removeprefix("^")

Slug = Annotated[str, AfterValidator(_slug), _text(pattern=_SLUG_REGEX, most=_SLUG_LENGTH)]
Line = Annotated[str, AfterValidator(_line), _text(pattern=_LINE_REGEX, most=_LINE_LENGTH)]
GroupName = Annotated[str, AfterValidator(_group), _text(most=_GROUP_LENGTH)]
Claim = Annotated[str, AfterValidator(_claim), _text(pattern=_CLAIM_REGEX, most=_CLAIM_LENGTH)]
ImageText = Annotated[
    str,
    AfterValidator(_image),
    _text(pattern=REFERENCE_REGEX, examples=("quay.io/jupyter/scipy-notebook:2025-11-06",)),
]
PatternText = Annotated[
    str, AfterValidator(_pattern), _text(pattern=PATTERN_REGEX, examples=("quay.io/jupyter/*", "nvcr.io/nvidia/**"))
]
Millicpu = Annotated[
    int,
    BeforeValidator(_some_millicpu),
    _quantity({"type": "number", "exclusiveMinimum": 0}, _SOME_CPUS_REGEX, _CORES),
]
MemoryBytes = Annotated[
    int,
    BeforeValidator(_some_memory),
    _quantity({"type": "integer", "minimum": _LEAST_MEMORY_BYTES}, MEMORY_REGEX, _MEMORY),
]
MillicpuLimit = Annotated[
    int, BeforeValidator(parse_millicpu), _quantity({"type": "number", "minimum": 0}, CPUS_REGEX, _CORES)
]
MemoryLimit = Annotated[
    int, BeforeValidator(parse_memory), _quantity({"type": "integer", "minimum": 0}, MEMORY_REGEX, _MEMORY)
]
Gpus = Annotated[StrictInt, Field(ge=0, le=1024)]
Seconds = Annotated[StrictInt, Field(gt=0, le=31_536_000)]
AutoOrOff = Annotated[Literal["auto", "off"], BeforeValidator(_off), WithJsonSchema({"enum": ["auto", "off", False]})]
QuickOrOff = Annotated[
    Literal["quick", "off"], BeforeValidator(_off), WithJsonSchema({"enum": ["quick", "off", False]})
]
BackgroundOrOff = Annotated[
    Literal["background", "off"], BeforeValidator(_off), WithJsonSchema({"enum": ["background", "off", False]})
]
