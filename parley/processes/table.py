"""Which processes make up the stack: the supervisor starts what stands here, and knows nothing else about them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from parley import prefect_env
from parley.processes import environment
from parley.settings import Settings

BEHIND_THE_DOOR: Final = 5
"""What runs stands back, at a peak, behind what listens, acknowledges and answers: a third of its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Where a process answers HTTP, and how long its silence is borne: `failures` in a row, `every` seconds apart.

    `first_failures` counts instead until it has answered once: a first start may have a database to bring up to date.
    """

    host: str
    port: int
    path: str
    tls: bool = False
    every: float = 5.0
    timeout: float = 4.0
    failures: int = 6
    first_failures: int = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process. Stages stop in ascending order, each with `grace` seconds before SIGKILL.

    `nice`: how far it stands back where there is not enough processor for all, as in nice(1).

    `once`: it is done when it ends with 0, and only then; it starts again when the file that it `reads` has changed.
    """

    role: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    stage: int
    grace: float
    once: bool = False
    reads: Path | None = None
    probe: Probe | None = None
    longest_wait: float = 5.0
    nice: int = 0


def programs(settings: Settings) -> tuple[Program, ...]:
    """The stack of this installation, in the order in which it is started. Raises `ConfigurationError`."""
    return (
        *((_prefect(settings),) if settings.own_prefect else ()),
        _hub(settings),
        _worker(settings) if settings.file.prefect.worker == "parley" else _register(settings),
        _listeners(settings),
        *((_containers(settings),) if settings.file.containers is not None else ()),
        *((_publish(settings),) if settings.publish else ()),
    )


def _prefect(settings: Settings) -> Program:
    options = ["--home", str(settings.home), "--port", str(settings.prefect_port)]
    pair, trust = settings.pair("prefect"), settings.prefect_trust
    if pair and trust:
        options += ["--certificate", str(pair.certificate), "--key", str(pair.key), "--authority", str(trust)]
    return Program(
        role="prefect",
        argv=_python("deployments.prefect_server", *options),
        environment=environment.prefect_environment(),
        stage=3,
        grace=10,
        nice=BEHIND_THE_DOOR,
        probe=Probe(
            host=prefect_env.LOOPBACK,
            port=settings.prefect_port,
            path="/api/health",
            tls=pair is not None,
            failures=12,
        ),
    )


def _hub(settings: Settings) -> Program:
    return Program(
        role="hub",
        argv=_python("parley.processes.hub"),
        environment=environment.hub_environment(settings),
        stage=2,
        grace=10,
        probe=hub_probe(settings),
    )


def _worker(settings: Settings) -> Program:
    return Program(
        role="worker",
        argv=_python("parley.runs.worker"),
        environment=environment.client_environment(settings, "worker"),
        stage=1,
        # 20 s for running runs, 5 s to end the others, and time to tell the hub of each.
        grace=32,
        nice=BEHIND_THE_DOOR,
    )


def _register(settings: Settings) -> Program:
    return Program(
        role="register",
        argv=_python("parley.runs.register"),
        environment=environment.client_environment(settings, "worker"),
        stage=1,
        grace=2,
        once=True,
        reads=settings.config,
        longest_wait=60,
    )


def _listeners(settings: Settings) -> Program:
    return Program(
        role="listeners",
        argv=_python("parley.processes.listeners"),
        environment=environment.client_environment(settings, "listeners"),
        stage=1,
        grace=10,
    )


def _containers(settings: Settings) -> Program:
    return Program(
        role="containers",
        argv=_python("parley.runs.container_process"),
        environment=environment.client_environment(settings, "containers"),
        stage=1,
        grace=25,
        longest_wait=60,
    )


def _publish(settings: Settings) -> Program:
    return Program(
        role="publish",
        argv=_python("parley.processes.publish"),
        environment=environment.plain_environment(settings),
        stage=1,
        grace=2,
    )


def hub_probe(settings: Settings) -> Probe:
    """Where the hub says that it lives."""
    web = settings.file.web
    host = prefect_env.LOOPBACK if web.host in ("0.0.0.0", "::", "") else web.host  # noqa: S104 - compared, not bound
    return Probe(host=host, port=settings.port, path="/healthz", tls=settings.pair("web") is not None)


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    # -P: the folder that `parley up` is called in must not put its files in the place of installed modules.
    return (sys.executable, "-P", "-m", module, *arguments)
