"""The hub's configuration on a cluster: what one line of it calls."""

from __future__ import annotations

from typing import Any

from traitlets import TraitError

from hub.launch import TEMPLATES
from hub.pod_spawner import PodSpawner
from hub.pod_times import START_TIMEOUT_S, times_problem
from hub.policy_file import SHIPPED, load_policy

_LINE = ("PodSpawner", "SidecarSpawner", "KubeSpawner", "Spawner")
"""The sections that a ``PodSpawner`` reads its settings from; the first that has one counts."""


def configure(c: Any, policy_file: str = SHIPPED) -> None:
    """Servers are pods with the sidecar in them, by the policy in ``policy_file``; ``c`` is JupyterHub's configuration.

    To be called after everything else that concerns the spawner. Raises ``TraitError``, which ends the hub with one
    line, where the times contradict one another; and ``PolicyError``.
    """
    policy = load_policy(policy_file)
    c.JupyterHub.spawner_class = PodSpawner
    c.SidecarSpawner.policy_file = policy_file
    c.JupyterHub.template_paths.append(TEMPLATES)
    problem = times_problem(
        grace_s=max(policy.storage.grace_s, _setting(c, "delete_grace_period", 0)),
        start_timeout_s=_setting(c, "start_timeout", START_TIMEOUT_S),
        restore_wait_s=_setting(c, "restore_wait_s", PodSpawner.restore_wait_s.default_value),
    )
    if problem:
        raise TraitError(problem)


def _setting(c: Any, name: str, otherwise: int) -> int:
    return next((int(c[section][name]) for section in _LINE if section in c and name in c[section]), otherwise)
