"""Property tests on a busy machine: how long one example takes says nothing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("busy", deadline=None, max_examples=60)
settings.load_profile("busy")
