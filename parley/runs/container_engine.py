"""Whether containers can be run here, and why not: asked before an automation that needs one is offered."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from parley.settings import ContainerLimits, Containers

if TYPE_CHECKING:
    from docker import DockerClient  # type: ignore[import-untyped]

NOT_SET = "it runs in a container only, and parley.toml has no [containers]: add that table, with its image."


def connect() -> DockerClient:
    """A client of the engine that DOCKER_HOST names, by default this machine's. Raises docker's own error."""
    import docker

    return docker.from_env(timeout=30)


def missing(containers: Containers | None, images: set[str]) -> str:
    """Why these images cannot be run, in a sentence; nothing when they can."""
    if containers is None:
        return NOT_SET
    from docker.errors import DockerException, ImageNotFound  # type: ignore[import-untyped]

    try:
        with closing(connect()) as client:
            client.ping()
            for image in sorted(images):
                try:
                    client.images.get(image)
                except ImageNotFound:
                    return (
                        f"it runs in a container, and the engine has no image {image!r}: build or pull it, or name "
                        "another in parley.toml."
                    )
    except (DockerException, OSError) as error:
        return (
            "it runs in a container, and no container engine answers: start Docker, or give this user access to its "
            f"socket ({_short(error)})."
        )
    return ""


def limits_of(containers: Containers, command: str, declared: ContainerLimits | None) -> ContainerLimits:
    """What the container of this command may have: parley.toml first, then the author's word, then the default."""
    chosen = containers.automations.get(command) or ContainerLimits()
    own = declared or ContainerLimits()
    return ContainerLimits(
        image=chosen.image or own.image or containers.image,
        memory_mb=chosen.memory_mb or own.memory_mb or containers.memory_mb,
        cpus=chosen.cpus or own.cpus or containers.cpus,
        network=chosen.network if chosen.network is not None else own.network or (),
    )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
