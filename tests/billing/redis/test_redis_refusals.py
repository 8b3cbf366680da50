"""What an error reply of Redis means: its state, or what was asked; as Redis 6.2 and 7 word it."""

import pytest
import redis

from billing.redis import error_replies as redis_refusals
from billing.redis.connection import run, state_of
from tests.billing.desk import credit_call
from tests.fakes import sick_redis

IN_SCRIPT_6 = "ERR Error running script (call to f_1822db09): @user_script:212: "
TEMPORARY = [
    "MISCONF Errors writing to the AOF file: No space left on device",
    IN_SCRIPT_6 + "@user_script: 212: -MISCONF Errors writing to the AOF file: No space left",
    IN_SCRIPT_6 + "@user_script: 212: -OOM command not allowed when used memory > 'maxmemory'.",
    IN_SCRIPT_6 + "@user_script: 212: -READONLY You can't write against a read only replica.",
    IN_SCRIPT_6 + "@user_script: 212: -NOREPLICAS Not enough good replicas to write.",
    IN_SCRIPT_6 + "Script killed by user with SCRIPT KILL...",
    "OOM command not allowed when used memory > 'maxmemory'. script: 1822db09, on @user_script:3.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN The cluster is down",
    "NOAUTH Authentication required.",
    "ERR max number of clients reached",
]
PERMANENT = [
    IN_SCRIPT_6 + "user_script:212: not a whole number below 2^52: charge",
    IN_SCRIPT_6 + "WRONGTYPE Operation against a key holding the wrong kind of value",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR value is not an integer or out of range script: 1822db09, on @user_script:3.",
    "ERR unknown command 'HGETX'",
    "NOSCRIPT No matching script. Please use EVAL.",
    # Whatever an argument that is quoted says, it says nothing of Redis.
    "ERR user_script:9: negative charge of MISCONF OOM BUSY script: 1822, on @user_script:9.",
]


@pytest.mark.parametrize("reply", TEMPORARY)
def test_a_refusal_by_its_state_says_what_is_the_matter(reply: str) -> None:
    assert redis_refusals.state_of(reply) != ""


@pytest.mark.parametrize("reply", PERMANENT)
def test_a_refusal_of_what_was_asked_is_none_of_its_state(reply: str) -> None:
    assert redis_refusals.state_of(reply) == ""


def test_a_script_that_is_not_loaded_is_neither() -> None:
    assert redis_refusals.is_not_loaded("NOSCRIPT No matching script. Please use EVAL.")
    assert not redis_refusals.is_not_loaded(TEMPORARY[1])


@pytest.mark.parametrize("state", sick_redis.STATES)
def test_our_other_connection_knows_each_state_by_the_same_table(
    redis_client: redis.Redis, state: str
) -> None:
    # given
    call = credit_call("tenant:{s01}:1", 1)
    run(redis_client, call)
    with sick_redis.STATES[state](redis_client), pytest.raises(redis.RedisError) as caught:
        # when
        run(redis_client, call)
    # then
    assert state_of(caught.value) != ""
    assert run(redis_client, call)


def test_our_other_connection_knows_what_is_refused_for_good(redis_client: redis.Redis) -> None:
    # given
    redis_client.set("tenant:{s01}:1", "text")
    call = credit_call("tenant:{s01}:1", 1)
    # when
    with pytest.raises(redis.ResponseError, match="WRONGTYPE") as caught:
        run(redis_client, call)
    # then
    assert state_of(caught.value) == ""
