"""What came of an action is said on the next page, and a refusal is said in its place."""

from typing import Any

import pytest
from django.contrib import messages
from django.contrib.messages.storage.base import BaseStorage
from django.http import HttpRequest
from redis.exceptions import ConnectionError as RedisGone

from billing.errors import BillingError, LimitRefused, PriceRefused
from gateway.console.saying import saying
from gateway.tenants.members import MemberRefused


class Kept(BaseStorage):
    """Messages of one request, kept nowhere."""

    def _get(self, *args: Any, **kwargs: Any) -> tuple[list[Any], bool]:
        return [], True

    def _store(self, said: Any, response: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return []


@pytest.fixture
def request_() -> HttpRequest:
    made = HttpRequest()
    made._messages = Kept(made)  # type: ignore[attr-defined]
    return made


def said(request: HttpRequest) -> list[tuple[int, str]]:
    return [(each.level, str(each.message)) for each in messages.get_messages(request)]


def test_what_was_done_is_said(request_: HttpRequest) -> None:
    with saying(request_, "The budget is lifted."):
        pass

    assert said(request_) == [(messages.SUCCESS, "The budget is lifted.")]


@pytest.mark.parametrize(
    "refusal",
    [LimitRefused("it is gone"), PriceRefused("it is gone"), MemberRefused("it is gone")],
)
def test_a_refusal_is_said_instead_and_goes_no_further(
    request_: HttpRequest, refusal: Exception
) -> None:
    after = []
    with saying(request_, "Saved."):
        raise refusal
    after.append("the next statement")

    assert said(request_) == [(messages.ERROR, "Nothing was changed: it is gone.")]
    assert after


def test_what_stands_behind_the_refusal_is_not_done(request_: HttpRequest) -> None:
    done: list[str] = []
    with saying(request_, "Saved."):
        for step in ("first", "second"):
            done.append(step)
            if step == "first":
                raise BillingError("no")

    assert done == ["first"]


@pytest.mark.parametrize("problem", [RedisGone("away"), ValueError("a bug"), KeyError("a bug")])
def test_an_outage_or_a_bug_is_no_refusal(request_: HttpRequest, problem: Exception) -> None:
    """Something may have moved: the page of errors says so, not this."""
    with pytest.raises(type(problem)), saying(request_, "Saved."):
        raise problem

    assert said(request_) == []
