"""How much is measured: the whole table, or what a machine with little time can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts of files and rounds, and durations in seconds. The defaults are the whole table."""

    scratch_bytes: int = 40 * 10**9
    scratch_inodes: int = 6_000_000
    """What a run of all benchmarks may need at its end: nothing is deleted before."""

    rest_s: float = 0.5
    """Between ``sync`` and a timed section."""

    flush_files: tuple[int, ...] = (5_000, 50_000, 500_000)
    flush_changed: tuple[int, ...] = (0, 10, 100, 1_000, 10_000)
    flush_rounds: int = 5

    first_copy_files: int = 50_000
    first_copy_rounds: int = 3

    large_file_bytes: int = 2 << 30
    large_file_rounds: int = 3

    latency_files: int = 5_000
    latency_samples: int = 200

    memory_files: tuple[int, ...] = (100_000, 1_000_000)
    memory_idle_s: float = 30.0
    memory_peer_files: int = 100_000
    """Peers are measured up to so many files: each of them makes as many inodes again."""

    idle_files: int = 100_000
    idle_files_per_directory: int = 10
    idle_s: float = 60.0
    idle_longest_s: float = 300.0
    """An idle window is made longer, up to this, so that a whole periodic scan falls into it."""

    ready_rounds: int = 3

    operations_files: int = 5_000
    operations_s: float = 130.0
    """Two periodic scans of a small home."""

    burst_files: int = 60_000


FULL = Sizes()

QUICK = Sizes(
    scratch_bytes=4 * 10**9,
    scratch_inodes=500_000,
    rest_s=0.2,
    flush_files=(2_000, 10_000),
    flush_changed=(0, 10, 1_000),
    flush_rounds=2,
    first_copy_files=5_000,
    first_copy_rounds=2,
    large_file_bytes=256 << 20,
    large_file_rounds=3,
    latency_files=1_000,
    latency_samples=20,
    memory_files=(20_000,),
    memory_idle_s=5.0,
    memory_peer_files=20_000,
    idle_files=20_000,
    idle_s=20.0,
    idle_longest_s=20.0,
    ready_rounds=2,
    operations_files=1_000,
    operations_s=20.0,
    burst_files=10_000,
)
