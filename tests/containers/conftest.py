"""Fixtures for tests that need a Docker engine: `make test-containers` brings one and a base image.

Others may use `image` (the image of these sources, built once) and `engine.ContainerStack` (a whole stack in a
container, with a parley.toml of the test's choice).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import docker  # type: ignore[import-untyped]
import pytest

from tests.containers import engine


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "containers: needs a Docker engine, that `make test-containers` brings"
    )


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    if engine.BASE not in os.environ:
        pytest.skip("no base image: run these by `make test-containers`")
    client = docker.from_env(timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(docker_client: docker.DockerClient) -> str:
    return engine.build(docker_client)
