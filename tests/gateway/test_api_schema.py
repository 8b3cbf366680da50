"""The management API under schemathesis: whatever its description allows, nothing answers 5xx."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from django.utils import timezone

from gateway import keys
from tests.people import Person

EXAMPLES = 5
SECONDS_MAX = 60
# Numbers that the tool likes to try: keys with them may be revoked, so they are not the caller's.
SPARE_KEYS = 20


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
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{live_server.url}/api/schema/",
            "--checks=not_a_server_error",
            "--phases=examples,coverage,fuzzing",
            f"--max-examples={EXAMPLES}",
            f"--max-time={SECONDS_MAX}",
            "--seed=1",
            f"--header=Authorization: Bearer {issued.plain}",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=SECONDS_MAX * 2,
        check=False,
    )
    # then
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    called = {int(number) for number in re.findall(r"(\d+) passed", done.stdout)}
    assert max(called) > 200, done.stdout[-3_000:]
