"""What Docker is asked for when a run gets its container: decided here, whatever the pool and the deployment say.

No network, a read-only root, no capabilities, a user of its own, limits on memory, processors and processes, and no
environment but what a run needs. The folder with its order and its sockets is the only thing of this machine's that it
sees, besides the mounts that parley.toml names, all of them read-only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prefect.settings import get_current_settings
from prefect_docker.worker import DockerWorkerJobConfiguration  # type: ignore[import-untyped]
from pydantic import Field

from parley import prefect_env
from parley.link.calls import RunOrder
from parley.runs import container_file, container_gate, container_run
from parley.settings import Containers, Settings

OF_INSTALLATION: Final = "parley.installation"
OF_RUN: Final = "parley.flow-run"
"""Labels by which our containers are known among those of others."""


class ContainerJob(DockerWorkerJobConfiguration):  # type: ignore[misc]
    """What a deployment may set for its runs."""

    image: str = ""
    memory_mb: int = Field(default=0, ge=0)
    cpus: float = Field(default=0, ge=0)
    egress: list[str] = Field(default_factory=list)
    blocks: list[str] = Field(default_factory=list)

    def get_extra_hosts(self, docker_client: Any) -> dict[str, str]:
        """None of Prefect's: the machine is not to be reached."""
        return {}


def arrange(
    job: ContainerJob, own: Containers, folder: Path, targets: tuple[str, ...], labels: Mapping[str, str]
) -> None:
    """Make of this configuration all that Docker is asked for; `folder` is mounted, `targets` may be reached."""
    memory = f"{job.memory_mb or own.memory_mb}m"
    job.image = job.image or own.image
    job.image_pull_policy = "Never"
    job.registry_credentials = None
    job.command = None
    job.env = _environment(own, job.env)
    job.labels = dict(labels)
    job.networks, job.network_mode = [], "none"
    job.volumes = [f"{folder}:{container_run.FOLDER}:ro", *(f"{one}:ro" for one in own.mounts)]
    job.mem_limit = job.memswap_limit = memory
    job.privileged = False
    # Removed by the worker, once it has seen how it ended.
    job.auto_remove = False
    job.container_create_kwargs = {
        "entrypoint": ["python", "-P", "-m", "parley.runs.container_run"],
        "user": own.user,
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,noexec,nosuid,nodev,size={own.scratch_mb}m,mode=1777"},  # noqa: S108 - in there
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": own.processes,
        "nano_cpus": int((job.cpus or own.cpus) * 1e9),
        "extra_hosts": _addresses(targets),
        "init": True,
        "ipc_mode": "private",
        "healthcheck": {"test": ["NONE"]},
        "log_config": {"Type": "json-file", "Config": {"max-size": "4m", "max-file": "1"}},
        "working_dir": "/tmp",  # noqa: S108
    }


def write_order(folder: Path, order: RunOrder, settings: Settings, targets: tuple[str, ...]) -> None:
    """Leave in the folder what the run is told: its order with its token, its ways out, its part of parley.toml."""
    addresses = _addresses(targets)
    loopback, port = prefect_env.LOOPBACK, container_run.PREFECT_PORT
    ways = [container_run.Way(host=loopback, port=port, name=container_gate.PREFECT_SOCKET)]
    for number, target in enumerate(targets):
        host, _, named = target.rpartition(":")
        ways.append(container_run.Way(host=addresses[host.lower()], port=int(named), name=f"{number}.sock"))
    told = container_run.ContainerOrder(order=order, ways=tuple(ways))
    for name, text in (
        (container_run.ORDER, told.model_dump_json()),
        (container_run.FILE, container_file.reduced(settings.file)),
    ):
        path = folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o644)


def _addresses(targets: tuple[str, ...]) -> dict[str, str]:
    """An address of the container's own loopback for each host: there its ways out begin."""
    hosts = sorted({target.rpartition(":")[0].lower() for target in targets})
    return {host: f"127.0.1.{number}" for number, host in enumerate(hosts, 1)}


def _environment(own: Containers, of_job: dict[str, str | None]) -> dict[str, str | None]:
    # Prefect adds all of the worker's settings, its password too: of those nothing is passed on.
    theirs = {name: value for name, value in of_job.items() if not name.startswith(("PREFECT_", "PARLEY_"))}
    csrf = "true" if get_current_settings().client.csrf_support_enabled else "false"
    scratch = Path("/tmp")  # noqa: S108 - the container's own
    ours = prefect_env.neutral_environment(Path("/nowhere"), folder=scratch / "prefect") | {
        "PREFECT_API_URL": f"http://{prefect_env.LOOPBACK}:{container_run.PREFECT_PORT}/api",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": csrf,
        "PARLEY_HOME": str(scratch / "parley"),
        "PARLEY_CONFIG": str(container_run.FOLDER / container_run.FILE),
        "PARLEY_HUB": f"unix:{container_run.FOLDER / container_gate.HUB_SOCKET}",
        "HOME": str(scratch),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # Without a value: what the image says for a whole stack is taken out.
    gone: dict[str, str | None] = {"PARLEY_KEY_FILE": None, "PARLEY_PUBLISH": None}
    return {**own.environment, **theirs, **ours, **gone}
