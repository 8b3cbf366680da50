"""A data plane that stood still or has no descriptors left: no seller pays for it."""

import itertools
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.fakes.upstream import TOKENS, FakeUpstream, two_second_trickle
from tests.gateway.world import World, add_offer, add_provider, eventually, shown_text
from tests.gateway.world import stream_events as events_of
from tests.patience import PATIENCE_S

LIMITS = {
    "TOKENHOUSE_FIRST_BYTE_TIMEOUT_MS": "3000",
    "TOKENHOUSE_FIRST_TOKEN_TIMEOUT_MS": "3000",
    "TOKENHOUSE_TOKEN_GAP_TIMEOUT_MS": "3000",
}
STILL_S = 4.0
STREAMS = 6
# Nobody has a connection to it before the test that wants to open one.
NEW = FakeUpstream()


def catalogue(upstream: FakeUpstream) -> None:
    provider = add_provider("steady", upstream.url)
    upstream.behaviours.update(slow=two_second_trickle, later=upstream.gated)
    for name in ("slow", "later", "brief"):
        add_offer(provider=provider, model=name, upstream_model=name)
    NEW.start()
    by_name = NEW.url.replace("127.0.0.1", "localhost")
    for slug, url in {"new": NEW.url, "named": by_name}.items():
        add_offer(provider=add_provider(slug, url), model=slug, upstream_model=slug)


def test_streams_go_on_after_the_process_stood_still(the_world: World) -> None:
    # given: streams under way, and answers that have not begun
    callers = [the_world.caller() for _ in range(STREAMS)]
    with ThreadPoolExecutor(2 * STREAMS) as threads:
        calls = the_world.upstream.calls
        streams = [threads.submit(the_world.chat, each, "slow", stream=True) for each in callers]
        eventually(lambda: sum(seen.sent > 2 for seen in calls("slow")) == STREAMS)
        waiting = [threads.submit(the_world.chat, each, "later", stream=True) for each in callers]
        eventually(lambda: len(calls("later")) == STREAMS)
        # when: for longer than any limit; the sellers go on meanwhile
        assert the_world.plane.process is not None
        os.killpg(the_world.plane.process.pid, signal.SIGSTOP)
        try:
            the_world.upstream.gate.set()
            time.sleep(STILL_S)
        finally:
            os.killpg(the_world.plane.process.pid, signal.SIGCONT)
        answers = [future.result() for future in (*streams, *waiting)]
    # then: all are whole, and the offers are open to all
    for answer, tokens in zip(answers, [40] * STREAMS + [len(TOKENS)] * STREAMS, strict=True):
        events = events_of(answer.text)
        said = "".join(TOKENS[number % len(TOKENS)] for number in range(tokens))
        assert (shown_text(events), events[-1]) == (said, "[DONE]")
    assert {call.hung_up for call in calls("slow")} == {False}
    for caller in callers:
        assert {event["outcome"] for event in the_world.settled(caller, 2)} == {"ok"}
        assert the_world.chat(caller, "brief").status_code == 200


@pytest.mark.parametrize("model", ["new", "named"])
def test_a_lack_of_descriptors_is_told_and_closes_no_offer(the_world: World, model: str) -> None:
    # given: a process that has none left for calls of its own
    caller = the_world.caller()
    with httpx.Client(
        base_url=the_world.plane.url, headers=caller.headers, timeout=PATIENCE_S
    ) as kept:
        kept.get("/v1/models")
        workers = _take_free_descriptors(the_world)
        # when: through a connection that is open already
        question = {"model": model, "messages": [{"role": "user", "content": "x"}]}
        try:
            refused = [kept.post("/v1/chat/completions", json=question) for _ in range(4)]
        finally:
            for pid, limits in workers.items():
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        # then
        assert [answer.status_code for answer in refused] == [503] * 4
        assert {answer.json()["error"]["code"] for answer in refused} == {"gateway_trouble"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        # and at once when there are some again
        assert kept.post("/v1/chat/completions", json=question).status_code == 200
    outcomes = [event["outcome"] for event in the_world.settled(caller, 5)]
    assert outcomes == ["gateway_error"] * 4 + ["ok"]


def _take_free_descriptors(world: World) -> dict[int, tuple[int, int]]:
    """No process of the plane can open another one; returns what each could before."""
    assert world.plane.process is not None
    group = world.plane.process.pid
    found: dict[int, tuple[int, int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_of_plane = os.getpgid(int(path.name)) == group
            held = {int(each.name) for each in (path / "fd").iterdir()} if is_of_plane else set()
        except (ProcessLookupError, PermissionError, FileNotFoundError):
            continue
        if is_of_plane:
            pid = int(path.name)
            found[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            free = next(number for number in itertools.count() if number not in held)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, found[pid][1]))
    return found
