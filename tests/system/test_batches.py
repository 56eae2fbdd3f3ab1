"""Requests that wait for the same read automation share a flow run, and each keeps its own answer, end and rights."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Stack
from tests.system.effects import effects

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(240)]

TOML = """
[automations]
modules = ["tests.system.batch_flows"]

[worker]
children = 1
"""


class Place:
    """A stack with one place, and the people who ask at the same time."""

    def __init__(self, stack: Stack, file: Path) -> None:
        self.stack = stack
        self.file = file
        self._people = ThreadPoolExecutor(12)

    def open(self, gate: str) -> None:
        self.file.with_name(f"{self.file.name}.{gate}").touch()

    def close(self, gate: str) -> None:
        self.file.with_name(f"{self.file.name}.{gate}").unlink(missing_ok=True)

    def ask(self, text: str) -> Future[dict[str, Any]]:
        return self._people.submit(self.stack.say, text, wait=60)

    def occupied(self) -> Future[dict[str, Any]]:
        before = effects(self.file).count("occupied")
        self.close("occupied")
        asked = self.ask("/occupy")
        self.stack.until(lambda: effects(self.file).count("occupied") > before, 30, "the place is taken")
        return asked

    def waiting(self, count: int) -> None:
        def queued() -> bool:
            found = self.stack.client.get("/api/v1/runs", params={"limit": 50}).raise_for_status().json()
            return [run["state"] for run in found["items"]].count("queued") == count

        self.stack.until(queued, 30, f"{count} wait")

    def prefect(self, path: str, **body: Any) -> Any:
        with self.stack.prefect() as client:
            return client.post(f"/{path}", json=body).raise_for_status().json()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    file = tmp_path_factory.mktemp("batches") / "effects"
    with Stack(toml=TOML, extra={"EFFECTS_FILE": str(file)}) as stack:
        yield Place(stack, file)


def text_of(answer: dict[str, Any]) -> str:
    return str(answer["replies"][-1]["text"])


def test_what_waits_shares_a_flow_run_and_each_is_answered_by_itself(place: Place) -> None:
    free = place.occupied()
    asked = {number: place.ask(f"/square {number}") for number in (2, 3, 13, 5)}
    place.waiting(4)
    place.open("occupied")
    answers = {number: future.result() for number, future in asked.items()}
    free.result()

    flow_run = {answer["flow_run_url"].rsplit("/", 1)[-1] for answer in answers.values()}
    assert len(flow_run) == 1, "one flow run for all"
    assert len({answer["run_id"] for answer in answers.values()}) == 4, "a run for each"
    assert text_of(answers[2]) == "4 for /square 2"
    assert text_of(answers[5]) == "25 for /square 5"
    assert answers[13]["state"] == "failed"
    assert "thirteen" in text_of(answers[13])

    this = {"id": {"any_": list(flow_run)}}
    place.stack.until(
        lambda: place.prefect("flow_runs/filter", flow_runs=this)[0]["state"]["type"] == "COMPLETED",
        20,
        "ended",
    )

    def tasks(name: str) -> list[str]:
        found = place.prefect("task_runs/filter", flow_runs=this)
        return sorted(task["state"]["type"] for task in found if task["name"].startswith(name))

    # The server notes task runs a little later.
    wanted = ["COMPLETED"] * 3 + ["FAILED"]
    place.stack.until(lambda: tasks("square-") == wanted, 20, "a task for each request")
    place.stack.until(lambda: tasks("measured") == ["COMPLETED"] * 3, 20, "and their own steps")


def test_one_alone_has_the_flow_run_of_its_automation(place: Place) -> None:
    answer = place.stack.say("/square 7")
    found = place.prefect(
        "flow_runs/filter", flow_runs={"id": {"any_": [answer["flow_run_url"].rsplit("/", 1)[-1]]}}
    )

    assert text_of(answer) == "49 for /square 7"
    assert found[0]["parameters"] == {"number": 7}


@pytest.mark.parametrize("command", ["square", "cube"])
def test_one_of_them_is_cancelled_and_the_others_go_on(place: Place, command: str) -> None:
    free = place.occupied()
    asked = [place.ask(f"/{command} {number}") for number in (101, 102, 3)]
    place.waiting(3)
    place.open("occupied")
    free.result()
    quick = asked[2].result()
    place.stack.until(
        lambda: sum(one.startswith(f"{command}-10") for one in effects(place.file)) == 2, 20, "both began"
    )
    runs = place.stack.client.get("/api/v1/runs", params={"limit": 5}).json()["items"]
    first = next(run for run in runs if run["state"] == "running")
    place.stack.client.post(f"/api/v1/runs/{first['id']}/cancel").raise_for_status()
    place.stack.until(lambda: any(one.done() for one in asked[:2]), 5, "the cancelled one is told at once")
    place.open("101")
    place.open("102")
    states = sorted(one.result()["state"] for one in asked[:2])
    place.close("101")
    place.close("102")

    assert quick["state"] == "done"
    assert states == ["cancelled", "done"]
    assert place.stack.say("/cube 2")["state"] == "done", "the place is free again"


def test_what_is_said_goes_to_whoever_asked(place: Place) -> None:
    free = place.occupied()
    asked = {number: place.ask(f"/cube {number}") for number in (4, 6)}
    place.waiting(2)
    place.open("occupied")
    free.result()

    for number, future in asked.items():
        answer = future.result()
        assert [reply["text"] for reply in answer["replies"]] == [f"computing {number}", str(number**3)]


def test_when_their_process_dies_each_goes_on_alone(place: Place) -> None:
    free = place.occupied()
    asked = {number: place.ask(f"/square {number}") for number in (17, 18, 19)}
    place.waiting(3)
    place.open("occupied")
    free.result()
    place.stack.until(lambda: "dying" in effects(place.file), 20, "one of them blocks the process")
    place.open("died")
    answers = {number: future.result() for number, future in asked.items()}

    assert {answer["state"] for answer in answers.values()} == {"done"}
    urls = [answers[number]["flow_run_url"] for number in (17, 18)]
    assert urls[0] != urls[1], "what may have ended the process takes no other with it again"
