"""A configuration of Kubernetes for where there is none."""

from __future__ import annotations

# Nothing is ever asked of it: KubeSpawner only wants a configuration to read.
NO_CLUSTER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:9"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
    "current-context": "none",
}
