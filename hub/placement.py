"""Where the pods of a profile may run: node selectors and tolerations, in the shape and by the rules of Kubernetes.

The rules are those of the API server (k8s.io/apimachinery/pkg/util/validation and ``ValidateTolerations`` in
k8s.io/kubernetes/pkg/apis/core/validation), so that what is accepted here is not refused at a user's start.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from hub.fields import Strict

_LENGTH = 63
_DOMAIN_LENGTH = 253
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_KEY_REGEX = f"^({_DOMAIN}/)?{_NAME}$"
_VALUE_REGEX = f"^({_NAME})?$"
_RESOURCE_REGEX = f"^{_DOMAIN}/{_NAME}$"


def _key(text: str) -> str:
    if not re.fullmatch(_KEY_REGEX, text) or len(text.rpartition("/")[0]) > _DOMAIN_LENGTH:
        raise ValueError("must be a label's key such as accelerator or nvidia.com/gpu.product")
    return text


def _value(text: str) -> str:
    if not re.fullmatch(_VALUE_REGEX, text):
        raise ValueError(f"must be a label's value: letters, digits, hyphens, dots and underscores, at most {_LENGTH}")
    return text


def _resource(text: str) -> str:
    if not re.fullmatch(_RESOURCE_REGEX, text) or len(text.rpartition("/")[0]) > _DOMAIN_LENGTH:
        raise ValueError("must be a resource such as nvidia.com/gpu or nvidia.com/mig-1g.10gb")
    return text


LabelKey = Annotated[str, AfterValidator(_key), WithJsonSchema({"type": "string", "pattern": _KEY_REGEX})]
LabelValue = Annotated[str, AfterValidator(_value), WithJsonSchema({"type": "string", "pattern": _VALUE_REGEX})]
ResourceName = Annotated[str, AfterValidator(_resource), WithJsonSchema({"type": "string", "pattern": _RESOURCE_REGEX})]


class Toleration(Strict):
    """A taint that does not keep the profile's pods away from a node."""

    key: LabelKey | None = Field(
        default=None, description="The taint's key; without it, every taint: then the operator must be Exists"
    )
    operator: Literal["Equal", "Exists"] = Field(
        default="Equal", description="Equal: the taint has this value; Exists: whatever its value"
    )
    value: LabelValue = Field(default="", description="The taint's value, for Equal")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; without it, every effect"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Toleration:
        if self.key is None and self.operator != "Exists":
            raise PydanticCustomError("operator", "without a key the operator must be Exists")
        if self.operator == "Exists" and self.value:
            raise PydanticCustomError("value", "with the operator Exists there is no value")
        return self

    def to_kubernetes(self) -> dict[str, str]:
        """As it stands in a pod."""
        fields = {"key": self.key, "operator": self.operator, "value": self.value or None, "effect": self.effect}
        return {name: value for name, value in fields.items() if value is not None}
