"""The embedded Postgres and Redis: real, private, and gone with the session."""

import pytest
import redis
from django.db import connection


@pytest.mark.django_db
def test_django_talks_to_postgres_18() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        (version,) = cursor.fetchone()
    assert 180000 <= int(version) < 190000


def test_redis_answers_and_starts_empty(redis_client: "redis.Redis") -> None:
    assert redis_client.dbsize() == 0
    redis_client.set("left", "over")


def test_redis_is_emptied_between_tests(redis_client: "redis.Redis") -> None:
    assert redis_client.get("left") is None
