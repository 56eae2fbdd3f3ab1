"""Whether the addresses that the stack is going to use are free, told before anything is started."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from parley import prefect_env
from parley.errors import ConfigurationError
from parley.settings import Settings


@dataclass(frozen=True, slots=True)
class Port:
    """An address, what is served there, and the environment variable that moves it."""

    host: str
    number: int
    what: str
    variable: str


def ports_of(settings: Settings) -> tuple[Port, ...]:
    """The ports of this installation."""
    return (
        Port(settings.host("web"), settings.port, "the console and REST", "PARLEY_PORT"),
        Port(settings.host("hooks"), settings.hooks_port, "hooks", "PARLEY_HOOKS_PORT"),
        Port(settings.host("metrics"), settings.metrics_port, "metrics", "PARLEY_METRICS_PORT"),
        *(
            (Port(prefect_env.LOOPBACK, settings.prefect_port, "Prefect", "PARLEY_PREFECT_PORT"),)
            if settings.own_prefect
            else ()
        ),
    )


def check(ports: Iterable[Port]) -> None:
    """Raise ConfigurationError, naming every port that cannot be used and how to choose another."""
    taken: dict[int, Port] = {}
    reasons = []
    for port in ports:
        first = taken.setdefault(port.number, port)
        if first is not port:
            reasons.append(
                f"{port.variable} and {first.variable} are both {port.number}: give them different ports."
            )
        elif reason := _unusable(port):
            reasons.append(reason)
    if reasons:
        raise ConfigurationError("\n".join(reasons))


def _unusable(port: Port) -> str:
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: an address that only lingers after a stop is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host, port.number))
        except OSError as error:
            return _sentence(port, error)
    return ""


def _sentence(port: Port, error: OSError) -> str:
    where = f"port {port.number} on {port.host}, for {port.what},"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken{_holder(port.number)}: end that program, or set {port.variable} to another port."
    if error.errno == errno.EACCES:
        return f"{where} needs more rights than this user has: set {port.variable} to one above 1023."
    return f"{where} cannot be used ({os.strerror(error.errno or 0)}): is {port.host} an address of this machine?"


def _holder(number: int) -> str:
    """Who listens there, where the system tells; only asked for once something is wrong."""
    try:
        import psutil

        for one in psutil.net_connections("tcp"):
            listening = one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == number
            if listening and one.pid:
                return f" by {psutil.Process(one.pid).name()} (pid {one.pid})"
    except Exception:  # noqa: BLE001 - other users' processes, other systems: then the name is not known
        return ""
    return ""
