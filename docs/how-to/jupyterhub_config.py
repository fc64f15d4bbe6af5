"""cambio_lab behind JupyterHub: add your authenticator and spawner. `tests/browser/test_hub.py` runs it as it is."""

import sys

c = get_config()  # noqa: F821 - JupyterHub defines it

c.Spawner.default_url = "/lab"
c.Spawner.environment = {
    "CAMBIO_LAB_DESKTOP": "sandbox",  # or docker; never leave it to what a user's machine happens to have
    "CAMBIO_LAB_MAX_DESKTOPS": "2",
    "CAMBIO_LAB_KEEP_SESSIONS": "false",  # desktops end with the user's server, so that culling frees their memory
    "JUPYTERHUB_ACTIVITY_INTERVAL": "60",  # seconds between a user server's reports; less than the culler's timeout
}

# More desktops for some. `environment` belongs to this one user's server.
MORE_DESKTOPS = {"ben": 4}


def before_spawn(spawner):
    if spawner.user.name in MORE_DESKTOPS:
        spawner.environment["CAMBIO_LAB_MAX_DESKTOPS"] = str(MORE_DESKTOPS[spawner.user.name])


c.Spawner.pre_spawn_hook = before_spawn

# Stop servers that were not used for an hour. An agent at work counts as use.
IDLE_SECONDS = 3600
c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [sys.executable, "-m", "jupyterhub_idle_culler", f"--timeout={IDLE_SECONDS}"],
    }
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    }
]
