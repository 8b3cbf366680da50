"""Redis or Postgres away: 503 with Retry-After, never a wrong key or an empty purse; then back.

The supervisor is frozen meanwhile, so that what was killed stays away until the test says so.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.e2e.house import DIALECTS, FOX, OPENAI, Customer, House, error_of, question
from tests.patience import ran_s

UNKNOWN_KEY = {"authorization": f"Bearer tk-{'0' * 12}-{'y' * 43}"}
# From when PostgreSQL answers again.
BACK_WITHIN_S = 15.0
# One second, and what a busy machine adds.
PAGE_WITHIN_S = 2.0


@pytest.fixture(scope="module")
def customer(house: House) -> Customer:
    made = house.customer()
    for _ in range(8):
        assert house.ask(OPENAI, question(), made.headers).status_code == 200
    house.until_booked(made, events=8)
    # Known means known without Postgres: in the snapshot of every process.
    house.until_known()
    return made


@contextmanager
def away(house: House, name: str) -> Iterator[None]:
    """The service is killed and stays away until the block ends."""
    supervisor = int((house.stack.root / "supervisor.lock").read_text())
    os.kill(supervisor, signal.SIGSTOP)
    try:
        house.stack.kill(name)
        yield
    finally:
        os.kill(supervisor, signal.SIGCONT)


def _serves(house: House, customer: Customer) -> bool:
    """In both dialects and, by asking often enough, from both processes."""
    paths = DIALECTS * 4
    statuses = [house.ask(path, question(), customer.headers).status_code for path in paths]
    assert set(statuses) <= {200, 503}
    return set(statuses) == {200}


def _knows_a_wrong_key(house: House) -> bool:
    """In both dialects and, by asking often enough, in both processes: each has connections of its
    own to find."""
    statuses = [house.ask(path, question(), UNKNOWN_KEY).status_code for path in DIALECTS * 4]
    assert set(statuses) <= {401, 503}
    return set(statuses) == {401}


def test_redis_away_is_503_in_both_dialects_and_over_when_it_is_back(
    house: House, customer: Customer
) -> None:
    # given
    calls, events = len(house.upstream.calls(FOX)), len(house.posted(customer))

    # when / then
    with away(house, "redis"):
        for path in DIALECTS * 4:
            answer = house.ask(path, question(), customer.headers)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert error_of(answer, path)["code"] == "registers_unavailable"
        assert len(house.upstream.calls(FOX)) == calls
        assert house.stack.answers("/")

    # and when it is back, requests are served and booked once, and nothing was lost
    house.stack.eventually(lambda: _serves(house, customer))
    served = len(house.upstream.calls(FOX)) - calls
    house.until_booked(customer, events=events + served)
    costs = sum(cost for _, cost, _ in house.posted(customer))
    assert house.spent_pico(customer) == costs


def test_without_postgres_each_page_says_so_within_a_second(house: House) -> None:
    # given
    pages = ("/", "/login/", "/admin/", "/api/v1/leaderboards/")
    answers: list[httpx.Response] = []
    took_s: list[float] = []
    # when
    with away(house, "postgres"):
        for page in pages * 2:
            began = ran_s()
            answers.append(house.stack.get(page))
            took_s.append(ran_s() - began)
    # then
    asked = [answer for answer in answers if not answer.is_redirect and not answer.is_success]
    assert asked
    for answer in asked:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2"), answer.url
    assert max(took_s) < PAGE_WITHIN_S
    # and
    house.stack.eventually(house.is_reachable)
    house.stack.eventually(lambda: house.stack.answers("/"))


def test_postgres_away_is_503_for_an_unknown_key_while_known_keys_go_on(
    house: House, customer: Customer
) -> None:
    # given: the other story has just taken Redis from both processes
    house.until_ready()
    calls, events = len(house.upstream.calls(FOX)), len(house.posted(customer))

    # when / then
    with away(house, "postgres"):
        for path in DIALECTS * 4:
            answer = house.ask(path, question(), customer.headers)
            assert answer.status_code == 200, answer.text
        for path in DIALECTS:
            answer = house.ask(path, question(), UNKNOWN_KEY)
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert error_of(answer, path)["code"] == "database_unavailable"

    # and what was served meanwhile is posted once it is back
    served = len(house.upstream.calls(FOX)) - calls
    house.stack.eventually(house.is_reachable)
    house.stack.eventually(lambda: house.stack.answers("/login/"))
    house.until_booked(customer, events=events + served)
    house.stack.eventually(lambda: _knows_a_wrong_key(house), timeout_s=BACK_WITHIN_S)
