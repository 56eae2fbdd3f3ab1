"""The same statements in three worlds: everything launched by us, and beside a Prefect that the user has already.

The worlds are those of `tests.system.worlds`: `own`, `stock` (server and process worker as Prefect ships them) and
`attached` (our worker at a server that was there before).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from tests.system import worlds
from tests.system.worlds import World

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(400)]

CONSOLE = "console:owner"


@pytest.fixture(scope="module", params=["own", "stock", "attached"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Each world in turn, one at a time."""
    with worlds.world(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def test_a_command_is_answered_and_its_run_can_be_looked_at(world: World) -> None:
    """The answer comes with its file; Prefect has the run with its tags, its tasks and their order."""
    answer = world.say("/order 1024")
    assert answer["state"] == "done", answer
    assert "Order 1024" in answer["replies"][0]["text"]
    assert [file["name"] for file in answer["replies"][0]["files"]] == ["logistics-1024.csv"]
    run = world.ended(answer["flow_run_id"])
    assert run["state_type"] == "COMPLETED"
    assert {"parley", "command:order", "by:owner"} <= set(run["tags"])
    assert world.task_runs(run["id"], 2) == {
        "the order database": "COMPLETED",
        "write_report": "COMPLETED",
    }
    assert "write_report" in {node["label"].rsplit("-", 1)[0] for node in graph(world, run["id"])}


def graph(world: World, flow_run_id: str) -> list[dict[str, Any]]:
    """What the run's page draws."""
    found = world.ask("GET", f"flow_runs/{flow_run_id}/graph-v2")
    return [node for _, node in found["nodes"]]


def test_a_redelivered_message_runs_once(world: World) -> None:
    """Twice the same message, at the same moment and once more after its end: one run, one effect, one answer."""
    with ThreadPoolExecutor(2) as people:
        both = list(people.map(lambda _: world.say("/mark twice", key="redelivered"), range(2)))
    again = world.say("/mark twice", key="redelivered")
    assert {one["run_id"] for one in [*both, again]} == {again["run_id"]}
    assert [one["text"] for one in again["replies"]] == ["marked twice"]
    assert world.lines("mark twice") == ["mark twice"]
    assert len([run for run in world.flow_runs("world-mark") if run["parameters"] == {"key": "twice"}]) == 1


def test_a_run_whose_process_is_killed_is_told_and_not_repeated(world: World) -> None:
    """`kill -9` in the middle of something that is not declared repeatable."""
    message = world.say("/lasting struck", wait=0)
    os.kill(world.pid_of("struck"), signal.SIGKILL)
    ended = world.outcome(message)
    assert ended["state"] == "failed"
    assert "not run again" in ended["replies"][-1]["text"]
    assert world.ended(ended["flow_run_id"])["state_name"] == "Crashed"
    assert len(world.lines("begun struck")) == 1
    assert len([run for run in world.flow_runs("world-lasting") if run["parameters"]["key"] == "struck"]) == 1


def test_runs_outlive_a_killed_hub(world: World) -> None:
    """`kill -9` of the hub with some runs in the middle and others on their way: all end, each once."""
    said = [world.say(f"/lasting hub{number} seconds=6", wait=0) for number in range(3)]
    world.pid_of("hub0")
    killed = world.stack.kill("hub")
    world.stack.back("hub", killed, worlds.PATIENCE)
    assert [world.outcome(message)["state"] for message in said] == ["done"] * 3
    for number in range(3):
        assert len(world.lines(f"begun hub{number}")) == 1
        assert len(world.lines(f"ended hub{number}")) == 1


def test_a_run_cancelled_in_prefect_ends_and_is_told(world: World) -> None:
    """As with the button of the run's page: the process ends, the state is Cancelled, the person hears of it."""
    message = world.say("/lasting stopped", wait=0)
    pid = world.pid_of("stopped")
    run = next(one for one in world.flow_runs("world-lasting") if one["parameters"]["key"] == "stopped")
    world.ask(
        "POST", f"flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    )
    ended = world.outcome(message)
    assert ended["state"] == "cancelled"
    assert "cancelled" in ended["replies"][-1]["text"]
    assert world.ended(run["id"])["state_name"] == "Cancelled"
    if world.name == "stock":
        world.until(lambda: not psutil.pid_exists(pid), "its process is gone")
    assert not world.lines("ended stopped")


def test_a_run_cancelled_in_the_chat_is_cancelled_in_prefect(world: World) -> None:
    """`/cancel` says so at once, and the person is told when it is true."""
    message = world.say("/lasting unwanted", wait=0)
    world.pid_of("unwanted")
    world.say("/cancel")
    ended = world.outcome(message)
    assert ended["state"] == "cancelled"
    assert world.ended(ended["flow_run_id"])["state_name"] == "Cancelled"
    assert not world.lines("ended unwanted")


class TestStartedInPrefect:
    """Runs that nobody asked for in a chat."""

    def test_without_a_grant_a_write_ends_before_its_first_task(self, world: World) -> None:
        """The reason stands in its state, where the person looks who started it."""
        run = world.ended(world.start_in_prefect("world-mark/parley", {"key": "ungranted"}))
        assert run["state_type"] in ("FAILED", "CRASHED", "CANCELLED")
        assert "parley grant mark" in run["state"]["message"]
        assert not world.lines("mark ungranted")

    def test_with_a_grant_it_runs_and_its_answer_goes_where_the_grant_says(self, world: World) -> None:
        """Under the name of the service that the grant names."""
        world.stack.admin("grant", automation="mark", as_name="night-shift", to=CONSOLE)
        try:
            run = world.ended(world.start_in_prefect("world-mark/parley", {"key": "granted"}))
        finally:
            world.stack.admin("ungrant", automation="mark")
        assert run["state_type"] == "COMPLETED"
        assert world.lines("mark granted") == ["mark granted"]
        assert "marked granted" in world.heard()
        runs = world.stack.client.get("/api/v1/runs").raise_for_status().json()["items"]
        assert ("mark", "night-shift", "done") in {
            (one["automation"], one["actor"], one["state"]) for one in runs
        }

    def test_a_schedule_fires_by_itself(self, world: World) -> None:
        """Every few seconds; the answer goes to the conversation that the schedule's parameters name."""
        deployment = world.ask("GET", "deployments/name/world-tick/parley")["id"]
        interval = {"interval": 10, "anchor_date": (datetime.now(UTC) + timedelta(seconds=3)).isoformat()}
        schedule = {"schedule": interval, "active": True, "parameters": {"key": "tock", "to": CONSOLE}}
        made = world.ask("POST", f"deployments/{deployment}/schedules", [schedule])
        try:
            world.until(lambda: "tick tock" in world.heard(), "the schedule has fired")
        finally:
            world.ask("DELETE", f"deployments/{deployment}/schedules/{made[0]['id']}")

    def test_the_declared_schedules_are_planned(self, world: World) -> None:
        """The report's runs of every half hour stand in Prefect's list of what comes."""

        def planned() -> bool:
            return any(run["state_type"] == "SCHEDULED" for run in world.flow_runs("daily_report"))

        world.until(planned, "the report is planned")


class TestExistingDeployment:
    """A deployment of the user's own, of a flow that knows nothing of us."""

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def reindex(world: World) -> None:
        """Deployed by the user, then made a command by a few lines, without a restart."""
        worlds.deploy_search(world)
        worlds.make_it_a_command(world)

    def test_it_is_listed_and_described(self, world: World) -> None:
        """Its parameters come from its own schema."""
        assert "/reindex" in world.say("/help")["replies"][0]["text"]
        text = world.say("/help reindex")["replies"][0]["text"]
        assert all(word in text for word in ("index", "depth", "shallow", "deep", "shards"))

    def test_its_outcome_and_its_report_come_back(self, world: World) -> None:
        """It runs where the user's deployment says, with typed parameters."""
        answer = world.say("/reindex books deep shards=3")
        assert answer["state"] == "done", answer
        assert "3 shards, deep" in answer["replies"][-1]["text"]
        assert world.lines("search books deep 3") == ["search books deep 3"]
        assert world.ended(answer["flow_run_id"])["state_type"] == "COMPLETED"

    def test_its_failure_is_told(self, world: World) -> None:
        """With the reason that Prefect has."""
        answer = world.say("/reindex films broken=true")
        assert answer["state"] == "failed"
        assert "the index films is locked" in answer["replies"][-1]["text"]

    def test_a_wrong_parameter_is_named_and_nothing_runs(self, world: World) -> None:
        """What does not fit the schema never reaches Prefect."""
        before = len(world.flow_runs("search"))
        assert "shards" in world.say("/reindex books shards=many")["replies"][0]["text"]
        assert "shallow" in world.say("/reindex books depth=bottomless")["replies"][0]["text"]
        assert len(world.flow_runs("search")) == before


def test_deploying_again_from_the_file_breaks_no_command(world: World) -> None:
    """`prefect deploy --all` takes our variables off; a worker that needs them says in the run's state what to set."""
    worlds.deploy_all(world.environment, world.folder)
    assert world.say("/order 1024")["state"] == "done"
    run = world.ended(world.start_in_prefect("order_status/parley", {"order_id": 1024}))
    if world.name == "stock":
        assert "set PARLEY_HOME" in run["state"]["message"]
    else:
        assert run["state_type"] == "COMPLETED", run["state"]
