"""What contradicts itself in a policy whose every value is right by itself."""

from __future__ import annotations

from collections.abc import Iterator

from hub.options import default_size, smallest_size
from hub.policy import Everyone, Group, Policy
from hub.quantity import Size, cores_text, gpus_text, memory_text

Key = tuple[str | int, ...]
Finding = tuple[Key, str]


def errors(policy: Policy) -> Iterator[Finding]:
    """What makes the policy useless to somebody, by key.

    A group with limits below every profile that it offers is refused here: each start of each member would be. Limits
    below some of them are none: with the limits of another group they may be enough.
    """
    for key, source in _sources(policy):
        offered = {slug: policy.profiles[slug] for slug in source.profiles if slug in policy.profiles}
        if offered and source.limits is not None:
            sizes = {slug: smallest_size(profile) for slug, profile in offered.items()}
            if not any(size.fits(source.limits.size) for size in sizes.values()):
                slug, size = next(iter(sizes.items()))
                yield (*key, "limits"), f"allow none of the profiles offered: {slug} needs {_text(size)} at least"


def warnings(policy: Policy) -> Iterator[Finding]:
    """What is probably a mistake, by key."""
    offered = {slug for _, source in _sources(policy) for slug in source.profiles}
    for slug, profile in policy.profiles.items():
        if slug not in offered:
            yield ("profiles", slug), "is offered to nobody"
        if profile.custom_image and not policy.images.allow:
            yield ("profiles", slug, "custom_image"), "no image can be entered: images.allow is empty"
    for key, source in _sources(policy):
        default = next((slug for slug in source.profiles if slug in policy.profiles), None)
        if default is not None and source.limits is not None:
            size = default_size(policy.profiles[default])
            if not size.fits(source.limits.size):
                yield (*key, "limits"), f"do not allow the default profile: {default} needs {_text(size)}"


def _sources(policy: Policy) -> Iterator[tuple[Key, Group | Everyone]]:
    yield ("everyone",), policy.everyone
    for name, group in policy.groups.items():
        yield ("groups", name), group


def _text(size: Size) -> str:
    return f"{cores_text(size.millicpu)}, {memory_text(size.memory_bytes)} and {gpus_text(size.gpus)}"
