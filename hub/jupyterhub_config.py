"""The hub on one machine, as `jupyterhub-sidecar up` starts it. Wiring only."""

import os

from hub.auth import configure_login
from hub.launch import TEMPLATES, Launch, culler_role, culler_service, logging_config, proxy_command, tools_directory
from hub.local import LocalSpawner
from hub.policy_file import load_policy
from hub.up import LOCAL_WARNING

launch = Launch.take_from(os.environ)
c = get_config()  # type: ignore[name-defined]  # noqa: F821  traitlets puts it there

c.JupyterHub.bind_url = f"http://127.0.0.1:{launch.port}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{launch.hub_port}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{launch.proxy_port}"
c.ConfigurableHTTPProxy.command = proxy_command(launch)
c.ConfigurableHTTPProxy.pid_file = os.path.join(launch.own, "proxy.pid")
c.ConfigurableHTTPProxy.log_level = "error"
c.JupyterHub.cookie_secret_file = os.path.join(launch.own, "cookie_secret")
c.JupyterHub.db_url = "sqlite:///jupyterhub.sqlite"  # in the hub's own directory, where it runs
c.JupyterHub.logging_config = logging_config(launch)
c.JupyterHub.template_paths = [TEMPLATES]
c.JupyterHub.template_vars = {"announcement_login": LOCAL_WARNING}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = True
c.JupyterHub.init_spawners_timeout = 1  # servers of a killed hub are drained in the background

configure_login(c, launch)
c.JupyterHub.spawner_class = LocalSpawner
c.LocalSpawner.policy_file = launch.policy_file
c.LocalSpawner.data = launch.data
c.LocalSpawner.notebook_environment = launch.notebook_environment
c.LocalSpawner.tools = tools_directory(launch.data)

c.JupyterHub.services = [culler_service(launch, load_policy(launch.policy_file))]
c.JupyterHub.load_roles = [culler_role()]
