"""docs/architecture.md names ten stops of a request; this walks real ones and holds it to them."""

import json
import re
from collections.abc import Iterable
from typing import Final

import httpx
import pytest

from billing import tasks as billing_tasks
from billing.models import UsageEvent
from providers import tasks as provider_tasks
from tests.fakes.upstream import FakeUpstream
from tests.gateway.walks import CLONE, walking, written_at
from tests.gateway.world import World, add_offer, add_provider, eventually, question
from tests.patience import PATIENCE_S

PAGE: Final = (CLONE / "docs" / "architecture.md").read_text(encoding="utf-8")
STOP: Final = re.compile(r"^(\d+)\. `([\w./]+)`, `(\w+)`(.*)$", re.MULTILINE)
BESIDE: Final = re.compile(r"^Beside the stops.*$", re.MULTILINE)
FILE: Final = re.compile(r"`((?:billing|gateway|providers)/[\w./]*)`")
OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
APPLICATION: Final = "tests.gateway.dataplane.walked:app"

Entered = tuple[str, str]


def catalogue(upstream: FakeUpstream) -> None:
    add_offer(provider=add_provider("pool", upstream.url), model="fox", upstream_model="good")


@pytest.fixture(scope="module")
def walks(the_world: World) -> list[list[Entered]]:
    """An answer of each kind: streamed and whole in one dialect, and translated to the other."""
    asked = [(OPENAI, True), (OPENAI, False), (ANTHROPIC, True)]
    return [walk_of(the_world, path, stream=stream) for path, stream in asked]


def walk_of(world: World, path: str, *, stream: bool) -> list[Entered]:
    caller = world.caller()
    body = question("fox", stream=stream)
    answer = httpx.post(
        f"{world.plane.url}{path}", json=body, headers=caller.headers, timeout=PATIENCE_S
    )
    assert answer.status_code == 200, answer.text
    assert world.settled(caller)[0]["outcome"] == "ok"
    written = written_at(world.plane.environment["TOKENHOUSE_DATA_DIR"], path)
    eventually(written.exists)
    walk = [(file, function) for file, function in json.loads(written.read_text())]
    written.unlink()
    return walk


def doors() -> list[Entered]:
    """The file or folder of each stop, and the function by which it is entered."""
    return [(found[2], found[3]) for found in STOP.finditer(PAGE)]


def named() -> list[str]:
    """Every file and folder that the stops, or what stands beside them, name."""
    beside = BESIDE.search(PAGE)
    assert beside is not None
    said = [found[0] for found in STOP.finditer(PAGE)] + [beside[0]]
    return [path for text in said for path in FILE.findall(text)]


def is_in(file: str, path: str) -> bool:
    return file == path or (path.endswith("/") and file.startswith(path))


def at(door: Entered, walk: Iterable[Entered]) -> int:
    """When a walk came by this door; -1 where it never did."""
    for step, (file, function) in enumerate(walk):
        if is_in(file, door[0]) and function == door[1]:
            return step
    return -1


def test_a_request_passes_nine_stops_in_their_order(walks: list[list[Entered]]) -> None:
    first_nine = doors()[:9]
    assert len(first_nine) == 9
    for walk in walks:
        steps = {door: at(door, walk) for door in first_nine}
        assert [door for door, step in steps.items() if step < 0] == [], "never entered"
        assert sorted(steps, key=steps.__getitem__) == first_nine


def test_a_request_enters_nothing_that_the_page_does_not_name(walks: list[list[Entered]]) -> None:
    entered = {file for walk in walks for file, _ in walk}
    assert sorted(f for f in entered if not any(is_in(f, path) for path in named())) == []


def test_what_the_page_names_of_a_request_is_entered(walks: list[list[Entered]]) -> None:
    entered = {file for walk in walks for file, _ in walk}
    tenth = STOP.findall(PAGE)[9]
    later = {tenth[1], *FILE.findall(tenth[3])}
    idle = [p for p in named() if p not in later and not any(is_in(f, p) for f in entered)]
    assert idle == []


def test_the_tenth_stop_takes_up_what_the_request_left(
    the_world: World, walks: list[list[Entered]]
) -> None:
    tenth = STOP.findall(PAGE)[9]
    files = [tenth[1], *FILE.findall(tenth[3])]
    with walking() as walk:
        billing_tasks.drain_usage()
        provider_tasks.record_measurements()
        provider_tasks.refresh_leaderboards()

    assert UsageEvent.objects.count() == len(walks)
    assert at(doors()[9], walk) >= 0
    came_by = list(dict.fromkeys(file for file, _ in walk if file in files))
    assert came_by == files
