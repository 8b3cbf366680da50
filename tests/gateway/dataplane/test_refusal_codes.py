"""Every code that a caller can hear stands on the page about refusals, and in every dialect."""

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Final

import pytest

from gateway import errors
from gateway.dataplane import refusal_log
from gateway.dataplane.surfaces.registry import SURFACES, Surface
from gateway.routing.rejections import OWN_FAULTS
from gateway.runtime.data_folders import CLONE
from providers import errors as of_providers

PAGE: Final = (CLONE / "docs" / "refusals.md").read_text(encoding="utf-8")
ROW: Final = re.compile(r"^\| ([\d, ]+) \| (.+?) \|", re.MULTILINE)
OUTAGE_ROW: Final = re.compile(r"^\| `(\w+)` \| (\d+) \|", re.MULTILINE)
# Whose status is that of the attempt; it is told where a seller's error has no name of its own.
OF_ATTEMPTS: Final = {errors.AllAttemptsFailed: 502}


def classes() -> list[type[errors.GatewayError]]:
    found = [
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, errors.GatewayError)
    ]
    assert len(found) > 15
    return found


def written_codes(path: Path) -> set[str]:
    """Those that this file gives by name: `code="…"` to a call, either arm of a choice too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    given = [
        keyword.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "code"
    ]
    arms = [[each.body, each.orelse] if isinstance(each, ast.IfExp) else [each] for each in given]
    constants = [each for some in arms for each in some if isinstance(each, ast.Constant)]
    return {each.value for each in constants if isinstance(each.value, str) and each.value}


def spoken() -> set[str]:
    sources = sorted((CLONE / "gateway" / "dataplane").rglob("*.py"))
    written = set().union(*map(written_codes, sources))
    own = {each.code for each in classes()}
    of_sellers = {
        each.code
        for _, each in inspect.getmembers(of_providers, inspect.isclass)
        if issubclass(each, of_providers.ProviderError)
    }
    heard = written | own | of_sellers | set(errors.OUTAGES) | set(OWN_FAULTS.values())
    return heard - {refusal_log.WOULD_REFUSE}


def documented() -> dict[str, set[int]]:
    """The statuses of each code, by the page's tables."""
    found: dict[str, set[int]] = {code: {503} for code, _ in OUTAGE_ROW.findall(PAGE)}
    for statuses, codes in ROW.findall(PAGE):
        for code in re.findall(r"`(\w+)`", codes):
            found.setdefault(code, set()).update(int(each) for each in statuses.split(","))
    return found


def test_the_page_has_every_code_and_no_other() -> None:
    assert sorted(spoken()) == sorted(documented())


@pytest.mark.parametrize("refusal", classes(), ids=lambda each: each.__name__)
def test_a_code_has_the_status_that_the_page_says(refusal: type[errors.GatewayError]) -> None:
    status = OF_ATTEMPTS.get(refusal, refusal.status)
    assert status in documented()[refusal.code]


def test_the_page_says_when_each_outage_is_looked_at_again() -> None:
    said = {code: int(seconds) for code, seconds in OUTAGE_ROW.findall(PAGE)}
    assert said == dict(errors.OUTAGES)


@pytest.mark.parametrize("surface", SURFACES.values(), ids=lambda each: each.NAME)
@pytest.mark.parametrize("code", errors.OUTAGES)
def test_an_outage_is_told_as_one_in_every_dialect(surface: Surface, code: str) -> None:
    # when
    outage = errors.Unavailable("Away.", code=code)
    said = json.loads(surface.render_error(outage, "an-id"))["error"]
    # then
    assert (outage.status, outage.retry_after_s, outage.retryable) == (
        503,
        errors.OUTAGES[code],
        True,
    )
    kind = "overloaded_error" if surface.NAME == "anthropic_messages" else "api_error"
    assert (said["type"], said["code"], said["message"]) == (kind, code, "Away.")


def test_an_outage_that_nobody_listed_is_none() -> None:
    with pytest.raises(KeyError):
        errors.Unavailable("Away.", code="something_else")
