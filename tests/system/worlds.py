"""The three worlds in which the same statements must hold.

`own`: `parley up` launches everything. `stock`: beside a Prefect server and a process worker that the user has already,
both as Prefect ships them. `attached`: that server, and our own worker at it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from websockets.sync.client import connect

from tests import measuring
from tests.ports import PLAIN
from tests.prefect_fixture import stop
from tests.stack import ROOT, Stack, free_ports, plain_environment
from tests.system import world_flows

PREFECT: Final = str(Path(sys.executable).with_name("prefect"))

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

QUICKER: Final = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_WORKER_PREFETCH_SECONDS": "0",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
}
"""A test need not wait for every poll; what is polled stays as it is."""

SEARCH: Final = """
deployments:
  - name: nightly
    entrypoint: tests.system.world_flows.search
    parameters: {shards: 2}
    work_pool: {name: parley}
"""

COMMAND: Final = """
[automations.reindex]
deployment = "search/nightly"
effect = "write"
"""

START_SECONDS: Final = 240.0

PATIENCE: Final = 90.0
"""A stock worker starts two interpreters for a run, on a machine that may be busy with other tests."""


@dataclass(frozen=True, kw_only=True)
class World:
    """One world that runs: our stack, Prefect's API, and the file of effects."""

    name: str
    stack: Stack
    prefect: httpx.Client
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    """With which the user's own programs are clients of the same Prefect."""

    @property
    def file(self) -> Path:
        """Where the effects are."""
        return self.folder / "effects"

    # -- effects

    def lines(self, start: str) -> list[str]:
        """The effects that begin with these words."""
        return [line for line in world_flows.lines(self.file) if f"{line} ".startswith(f"{start} ")]

    def pid_of(self, key: str) -> int:
        """The process in which `/lasting KEY` is; waits for it."""
        self.until(lambda: bool(self.lines(f"begun {key}")), f"{key} has begun")
        return int(self.lines(f"begun {key}")[0].split()[-1])

    # -- people

    def say(self, text: str, *, wait: float = PATIENCE, key: str | None = None) -> dict[str, Any]:
        """Say something as the owner and wait for the end of it."""
        return self.stack.say(text, wait=wait, key=key)

    def outcome(self, message: Mapping[str, Any], seconds: float = PATIENCE) -> dict[str, Any]:
        """A message as it is once it has ended."""
        ended: dict[str, Any] = self.eventually(
            lambda: self._ended(message["id"]), "the message has ended", seconds
        )
        return ended

    def _ended(self, message_id: str) -> dict[str, Any] | None:
        view: dict[str, Any] = (
            self.stack.client.get(f"/api/v1/messages/{message_id}").raise_for_status().json()
        )
        return view if view["state"] not in ("received", "queued", "running") else None

    def heard(self) -> list[str]:
        """What the owner reads in the console, oldest first."""
        address = self.stack.url.replace("http", "ws", 1) + "/ws"
        with connect(address, additional_headers=self.stack.headers, proxy=None) as page:
            events = iter(lambda: json.loads(page.recv(timeout=10)), None)
            history = next(event for event in events if event["type"] == "history")
        return [str(line.get("text", "")) for line in history["lines"] if line["who"] == "parley"]

    # -- Prefect

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Call Prefect's API, as its pages do."""
        answer = self.eventually(lambda: self._answer(method, path, body), f"Prefect answers {path}", 30)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def _answer(self, method: str, path: str, body: Any) -> httpx.Response | None:
        # A stock server says 503 when its SQLite is busy, and drops idle connections.
        with suppress(httpx.TransportError):
            answer = self.prefect.request(method, path, json=body)
            return answer if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE else None
        return None

    def start_in_prefect(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Start a run as Prefect's pages do; returns the flow run's id."""
        found = self.ask("GET", f"deployments/name/{deployment}")
        return str(
            self.ask("POST", f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]
        )

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """One flow run as it is now."""
        found: dict[str, Any] = self.ask("GET", f"flow_runs/{flow_run_id}")
        return found

    def ended(self, flow_run_id: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """A flow run once it is in a terminal state."""

        def look() -> dict[str, Any] | None:
            found = self.flow_run(flow_run_id)
            return found if found["state_type"] in TERMINAL else None

        run: dict[str, Any] = self.eventually(look, f"flow run {flow_run_id} has ended", seconds)
        return run

    def flow_runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of one flow."""
        found: list[dict[str, Any]] = self.ask(
            "POST", "flow_runs/filter", {"flows": {"name": {"any_": [flow]}}}
        )
        return found

    def task_runs(self, flow_run_id: str, count: int) -> dict[str, str]:
        """The states of a flow run's tasks by name; Prefect writes them a moment after the flow run has ended."""

        def look() -> dict[str, str] | None:
            found = self.ask("POST", "task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
            tasks = {str(one["name"]).rsplit("-", 1)[0]: str(one["state_type"]) for one in found}
            return tasks if len(tasks) == count and set(tasks.values()) <= TERMINAL else None

        tasks: dict[str, str] = self.eventually(look, f"{count} task runs are there")
        return tasks

    # -- waiting

    def until(self, holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until something holds."""
        self.stack.until(holds, seconds, what)

    def eventually(self, look: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until there is something to see, and return it."""
        seen: list[Any] = []

        def holds() -> bool:
            found = look()
            seen.append(found)
            return found is not None

        self.stack.until(holds, seconds, what)
        return seen[-1]


@contextmanager
def world(name: str, folder: Path) -> Iterator[World]:
    """One world for the length of the block."""
    with {"own": own, "stock": stock, "attached": attached}[name](folder) as made:
        yield made


@contextmanager
def own(folder: Path) -> Iterator[World]:
    """Everything launched by us."""
    with ExitStack() as everything:
        extra = QUICKER | {world_flows.FILE: str(folder / "effects")}
        stack = everything.enter_context(Stack(toml=toml("parley"), extra=extra, fresh=True))
        yield World(
            name="own",
            stack=stack,
            prefect=everything.enter_context(stack.prefect()),
            folder=folder,
            environment=plain_environment() | stack.prefect_environment,
        )


@contextmanager
def attached(folder: Path) -> Iterator[World]:
    """Our worker at a Prefect server that was there before; nobody made a work pool for us."""
    with ExitStack() as everything:
        environment = user_environment(folder)
        everything.enter_context(stock_server(folder, environment))
        stack = everything.enter_context(Stack(toml=toml("parley"), extra=_given(environment)))
        client = everything.enter_context(_client(environment["PREFECT_API_URL"]))
        yield World(name="attached", stack=stack, prefect=client, folder=folder, environment=environment)


@contextmanager
def stock(folder: Path) -> Iterator[World]:
    """Beside the server and the worker of the user, who has deployed our automations from prefect.yaml."""
    with ExitStack() as everything:
        environment = user_environment(folder)
        everything.enter_context(stock_server(folder, environment))
        client = everything.enter_context(_client(environment["PREFECT_API_URL"]))
        client.post("work_pools/", json={"name": "parley", "type": "process"}).raise_for_status()
        everything.enter_context(stock_worker(folder, environment))
        deploy_all(environment, folder)
        stack = everything.enter_context(Stack(toml=toml("stock"), extra=_given(environment)))
        yield World(name="stock", stack=stack, prefect=client, folder=folder, environment=environment)


def toml(worker: str) -> str:
    """A parley.toml with the automations of the tests."""
    return f"""
[prefect]
worker = "{worker}"

[duty]
conversations = ["console:owner"]

[automations]
modules = ["flows", "tests.system.world_flows"]

"""


def user_environment(folder: Path) -> dict[str, str]:
    """What the user's own Prefect processes are started with: Prefect's defaults, in a folder of their own."""
    (port,) = free_ports(1)
    return measuring.without_prefect(
        plain_environment()
        | QUICKER
        | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_SERVER_UI_ENABLED": "false",  # its pages would be written into site-packages
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
            world_flows.FILE: str(folder / "effects"),
        }
    )


@contextmanager
def stock_server(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """`prefect server start`, as Prefect ships it."""
    port = environment["PREFECT_API_URL"].removesuffix("/api").rpartition(":")[2]
    with _running(folder, "server", environment, "server", "start", "--port", port) as process:
        _wait_until_healthy(process, environment["PREFECT_API_URL"], folder / "server.log")
        yield


@contextmanager
def stock_worker(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """`prefect worker start --type process`, as Prefect ships it."""
    with _running(folder, "worker", environment, "worker", "start", "--pool", "parley", "--type", "process"):
        yield


def deploy_all(environment: Mapping[str, str], folder: Path) -> None:
    """`prefect deploy --all` with our prefect.yaml, and nobody there to answer questions."""
    run_prefect(
        "--no-prompt", "deploy", "--all", "--prefect-file", str(ROOT / "prefect.yaml"),
        environment=environment, folder=folder,
    )  # fmt: skip


def deploy_search(world: World) -> None:
    """The user deploys a flow of their own, from a file of their own."""
    file = world.folder / "prefect.yaml"
    file.write_text(SEARCH)
    run_prefect(
        "--no-prompt", "deploy", "--all", "--prefect-file", str(file),
        environment={**world.environment, "PYTHONPATH": str(ROOT)}, folder=world.folder,
    )  # fmt: skip


def make_it_a_command(world: World) -> None:
    """A few lines in parley.toml, taken up without a restart."""
    world.stack.configure(toml("stock" if world.name == "stock" else "parley") + COMMAND)
    world.until(
        lambda: world.stack.client.get("/api/v1/automations").text.count("reindex") > 0, "it is a command"
    )


def run_prefect(*arguments: str, environment: Mapping[str, str], folder: Path) -> str:
    """One command of Prefect's command line, to its end."""
    done = subprocess.run(
        [PREFECT, *arguments], env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"prefect {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def _running(
    folder: Path, name: str, environment: Mapping[str, str], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [PREFECT, *arguments],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], api: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{api}/health", trust_env=False, timeout=5, verify=PLAIN).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"no Prefect server:\n{log.read_text()}")


def _given(environment: Mapping[str, str]) -> dict[str, str]:
    """What a user has in the environment who calls `parley up`."""
    names = ("PREFECT_API_URL", world_flows.FILE, *(name for name in QUICKER if "SERVER" not in name))
    return {name: environment[name] for name in names}


def _client(api: str) -> httpx.Client:
    return httpx.Client(base_url=f"{api}/", timeout=30, trust_env=False, verify=PLAIN)
