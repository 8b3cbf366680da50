"""Two offers of one model: the policy moves traffic, and so does the death of a worker."""

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.stack import MODEL, Stack, worker_of
from tests.patience import PATIENCE_S

# A worker loads its model, and measures itself.
STARTED_WITHIN_S = 300.0


def _other(stack: Stack, sku: str) -> str:
    """The other in-house offer; its name says how this machine computes."""
    [other] = stack.sql(
        "SELECT sku FROM providers_offer o JOIN providers_model m ON m.id = o.model_id "
        "WHERE m.slug = %s AND o.sku LIKE 'in-house/%%' AND o.sku <> %s",
        MODEL,
        sku,
    )
    return str(other[0])


def _both_sell(stack: Stack) -> bool:
    """Both workers answer and are candidates, also if an earlier story has killed one: a data plane
    that has not called it since does not know."""
    for port in (stack.worker_port, stack.worker_port + 1):
        try:
            httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=PATIENCE_S)
        except httpx.TransportError:
            return False
    answer = stack.chat(key=stack.api_keys[0], explain=True)
    said = answer.json().get("tokenhouse", {}).get("explanation", {})
    return answer.is_success and len(said["candidates"]) == 2


def _served_by(stack: Stack) -> str:
    answer = stack.chat(key=stack.api_keys[0])
    assert answer.status_code == 200, answer.text
    return answer.headers["x-tokenhouse-offer"]


def _set_policy(stack: Stack, **fields: str) -> None:
    """As a person does: open the page, choose, save."""
    with stack.sign_in() as browser:
        page = browser.get("/routing/")
        assert page.status_code == 200
        token = browser.cookies["csrftoken"]
        answer = browser.post(
            "/routing/",
            data={"csrfmiddlewaretoken": token, "allow_fallbacks": "on", **fields},
            headers={"referer": f"{stack.console}/routing/"},
        )
        assert answer.status_code == 200, answer.text[:500]


def _policy_in_force(stack: Stack) -> str:
    answer = stack.chat(key=stack.api_keys[0], explain=True)
    return str(answer.json()["tokenhouse"]["explanation"]["policy"])


@pytest.fixture
def cheapest_again(stack: Stack) -> Iterator[None]:
    yield
    _set_policy(stack, kind="cheapest")
    stack.eventually(lambda: _policy_in_force(stack) == "cheapest")


@pytest.mark.usefixtures("cheapest_again")
def test_a_policy_changed_in_the_dashboard_moves_the_next_requests(stack: Stack) -> None:
    # given whatever the cheapest offer is
    stack.eventually(lambda: _both_sell(stack), timeout_s=STARTED_WITHIN_S)
    _set_policy(stack, kind="cheapest")
    first = _served_by(stack)
    other = _other(stack, first)

    # when the other one is pinned in the dashboard
    _set_policy(stack, kind="pinned", pinned_skus=other)

    # then requests move to it once the data plane has the new snapshot
    stack.eventually(lambda: _served_by(stack) == other)


def test_the_death_of_the_cheaper_worker_is_served_by_the_other_and_explained(
    stack: Stack,
) -> None:
    # given the offer that serves now
    stack.eventually(lambda: _both_sell(stack), timeout_s=STARTED_WITHIN_S)
    first = _served_by(stack)
    other = _other(stack, first)

    # when its worker is killed
    stack.kill(worker_of(first))
    answer = stack.chat(key=stack.api_keys[0], explain=True)

    # then the other serves, and the explanation names the failed attempt
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tokenhouse-offer"] == other
    explanation = answer.json()["tokenhouse"]["explanation"]
    tried = explanation.get("attempts") or []
    assert [note["offer"] for note in tried] == [first, other]
    assert tried[0]["outcome"] == "upstream_error"
    assert tried[0]["reason"]

    # and the dashboard's page of the request says so too
    with stack.sign_in() as browser:
        path = f"/requests/{answer.headers['x-request-id']}/"

        def page() -> str:
            found = browser.get(path)
            return found.text if found.is_success else ""

        shown = stack.eventually(page)
    assert first.rpartition("/")[2] in shown
    assert other.rpartition("/")[2] in shown

    # and the supervisor brings the worker back
    stack.eventually(lambda: _served_by(stack) == first, timeout_s=STARTED_WITHIN_S)
