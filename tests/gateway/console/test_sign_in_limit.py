"""Guessing is limited by name and by address; good sign-ins do not count, bystanders stay free."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from django.test import Client

from gateway.console import sign_in_limit
from gateway.console.sign_in_limit import TRIES_PER_ADDRESS, TRIES_PER_NAME, TRIES_PER_PAIR
from tests.people import Person

PASSWORD = "correct horse"
HOME, OFFICE = "198.51.100.7", "203.0.113.9"

pytestmark = pytest.mark.usefixtures("redis_client")


def sign_in(name: str, password: str, address: str) -> int:
    answer = Client(REMOTE_ADDR=address).post("/login/", {"username": name, "password": password})
    return int(answer.status_code)


def guess(name: str, address: str, times: int) -> None:
    """As fast as passwords are never looked at: what counts is counted before."""
    for _ in range(times):
        sign_in_limit.begin(address=address, username=name)


def test_good_sign_ins_are_not_counted(alice: Person) -> None:
    said = {sign_in("alice", PASSWORD, HOME) for _ in range(TRIES_PER_PAIR + 2)}

    assert said == {302}


def test_ten_guesses_of_a_name_at_an_address_are_all(alice: Person) -> None:
    said = [sign_in("alice", "wrong", HOME) for _ in range(TRIES_PER_PAIR)]

    assert set(said) == {200}
    assert sign_in("Alice ", PASSWORD, HOME) == 429


def test_guesses_at_once_are_counted_one_by_one(alice: Person) -> None:
    with ThreadPoolExecutor(8) as pool:
        tries = list(
            pool.map(
                lambda _: sign_in_limit.begin(address=HOME, username="alice"),
                range(TRIES_PER_PAIR * 3),
            )
        )

    assert sum(each.may_go_on for each in tries) == TRIES_PER_PAIR


def test_who_is_guessed_at_from_elsewhere_signs_in_at_home(alice: Person) -> None:
    # given
    guess("alice", OFFICE, 1_000)

    # then
    assert sign_in("alice", PASSWORD, OFFICE) == 429
    assert sign_in("alice", PASSWORD, HOME) == 302


def test_who_is_guessed_at_from_everywhere_signs_in_where_known(alice: Person) -> None:
    # given
    assert sign_in("alice", PASSWORD, HOME) == 302
    for place in range(TRIES_PER_NAME // TRIES_PER_PAIR + 1):
        guess("alice", f"192.0.2.{place}", TRIES_PER_PAIR)

    # then
    assert sign_in("alice", PASSWORD, OFFICE) == 429
    assert sign_in("alice", PASSWORD, HOME) == 302


def test_neighbours_of_a_guesser_sign_in(alice: Person, bob: Person) -> None:
    # given one who guesses many names from the office that Bob is known at
    assert sign_in("bob", PASSWORD, OFFICE) == 302
    guess("alice", OFFICE, 1_000)
    assert sign_in("bob", PASSWORD, OFFICE) == 302
    for name in range(TRIES_PER_ADDRESS + 1):
        guess(f"nobody {name}", OFFICE, 1)

    # then
    assert sign_in("alice", PASSWORD, OFFICE) == 429
    assert sign_in("bob", PASSWORD, OFFICE) == 302


def test_one_ipv6_network_is_one_address(alice: Person) -> None:
    for host in range(TRIES_PER_PAIR):
        guess("alice", f"2001:db8::{host:x}", 1)

    assert sign_in("alice", PASSWORD, "2001:db8::ffff") == 429
    assert sign_in("alice", PASSWORD, "2001:db8:0:1::1") == 302


def test_without_redis_nobody_guesses(
    alice: Person, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    def away(*_: object, **__: object) -> int:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(sign_in_limit.cache, "incr", away)

    assert sign_in("alice", PASSWORD, HOME) == 503
