"""What the figures are to meet, each at the size it is promised for."""

from __future__ import annotations

FLUSH_S = {10: 0.05, 1_000: 0.4}
"""By the number of changed files, among any number of files."""

FLUSH_TO_RSYNC = {(50_000, 100): 0.2}
"""By files and changed files: our seconds over those of ``rsync -a --delete``."""

FLUSH_GROWTH = 1.5
"""Our seconds among the most files over those among the fewest. That the cost follows the change and not the tree is
the promise; half as much again is what the measurement itself may differ by."""

FIRST_COPY_FILES = 50_000
FIRST_COPY_TO_RSYNC_FSYNC = 0.3

LARGE_FILE_BYTES = 2 << 30
LARGE_FILE_TO_CP = 1.3

LATENCY_P50_S = 1.0
LATENCY_P99_S = 3.0

PSS_MB = {100_000: 45.0, 1_000_000: 150.0}
"""By files, helpers included, megabytes of 10⁶ bytes."""

IDLE_DIRECTORIES = 10_000
IDLE_CPU_PERCENT = 0.5
"""Of one core."""
READY_S = 1.0

OPERATIONS_BUT_LEASE = 0
LEASE_WRITES_PER_MINUTE = 1.0

BURST_FILES = 60_000
BURST_NEW_FILE_S = 5.0
BURST_IDLE_CPU_PERCENT = 1.0
