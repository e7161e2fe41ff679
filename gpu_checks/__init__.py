"""What proves the GPUs: a verdict with a cause and a remedy, on any machine."""

from __future__ import annotations

VERSION = "0.1.0"  # the distribution's; written here because a zipapp has no installed metadata
