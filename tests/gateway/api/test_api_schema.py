"""The management API under schemathesis: whatever its description allows, nothing answers 5xx."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from django.utils import timezone

from gateway.tenants import keys, sellers
from tests.people import Person
from tests.providers.made_offers import make_offer

EXAMPLES = 5
SECONDS_MAX = 60
# Numbers that the tool likes to try: keys with them may be revoked, so they are not the caller's.
SPARE_KEYS = 20
# The calls of the house take a key of another scope.
HOUSE = "^/api/v1/(sellers|payouts)/"


@pytest.mark.django_db(transaction=True)
def test_no_call_that_the_description_allows_is_our_fault(
    alice: Person, live_server: Any, redis_client: redis.Redis, tmp_path: Path
) -> None:
    # given
    for number in range(SPARE_KEYS):
        issued = keys.issue(
            tenant=alice.tenant,
            name=f"ops {number}",
            scopes=(keys.MANAGEMENT,),
            created_by="test",
            now=timezone.now(),
        )
    # Most calls would only find that a tenant of a random name does not exist.
    (tmp_path / "schemathesis.toml").write_text(
        f'[parameters]\n"path.tenant" = "{alice.tenant.slug}"\n'
    )
    # when
    called = run(live_server.url, issued.plain, tmp_path, f"--exclude-path-regex={HOUSE}")
    # then
    assert called > 200


@pytest.mark.django_db(transaction=True)
def test_no_call_of_the_house_that_the_description_allows_is_our_fault(
    alice: Person, live_server: Any, redis_client: redis.Redis, tmp_path: Path
) -> None:
    # given
    provider, now = make_offer("acme/small").provider, timezone.now()
    sellers.register(team=alice.team, provider=provider, house_share_ppm=0, actor="op", now=now)
    issued = keys.issue_for_operators(
        tenant=alice.tenant, name="pay", created_by="op", now=now, expires_at=None
    )
    named = f'[parameters]\n"path.seller" = "{provider.slug}"\n'
    (tmp_path / "schemathesis.toml").write_text(named)
    # when
    called = run(live_server.url, issued.plain, tmp_path, f"--include-path-regex={HOUSE}")
    # then
    assert called > 20


def run(url: str, plain: str, folder: Path, which: str) -> int:
    """How many calls passed; none may have been answered with 5xx."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{url}/api/schema/",
            "--checks=not_a_server_error",
            "--phases=examples,coverage,fuzzing",
            f"--max-examples={EXAMPLES}",
            f"--max-time={SECONDS_MAX}",
            "--seed=1",
            which,
            f"--header=Authorization: Bearer {plain}",
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=SECONDS_MAX * 2,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    return max(int(number) for number in re.findall(r"(\d+) passed", done.stdout))
