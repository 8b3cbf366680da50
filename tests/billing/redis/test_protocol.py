"""Each script is told each thing wrongly: it refuses, and nothing has moved."""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Final

import pytest
import redis

from billing import registers
from billing.holding import holds
from billing.holding.holds import HoldRequest, RateScope, SettledAttempt, SpendScope
from billing.redis import declared, protocol, scripts
from billing.redis.kinds import Kind, Shape, shape_of
from billing.redis.scripts import Call, Script
from tests.billing import desk as desks
from tests.billing.desk import Desk, credit_call, request_id_at

BEYOND: Final = str(2**52)
OF_ANOTHER_KIND: Final[dict[Any, tuple[Any, ...]]] = {
    declared.Count: (-1, 1.5, "x", "", BEYOND, "1e3"),
    declared.Whole: (1.5, "x", "", BEYOND, f"-{BEYOND}"),
    declared.Maybe: (-1, 1.5, "x", BEYOND),
    declared.Flag: (2, "x", ""),
    declared.RequestId: (7, "x", ""),
    declared.EntryId: ("x", "", "-1"),
    declared.Numbers: ("x", "1.5"),
    declared.Word: ("two words", "\n"),
    declared.Json: (b"", b"7", b"[]", b'{"a":1', b'"a":1}'),
}
WRONG_BY_PATTERN: Final[dict[Kind, tuple[Any, ...]]] = {
    hint.__metadata__[0]: values for hint, values in OF_ANOTHER_KIND.items()
}
# A session is never among a settle's: it is the last of a hold's.
CAPS: Final = tuple(
    SpendScope(kind, scope, window, 5_000)
    for kind, scope, window in (("tenant", "71", "month"), ("key", "5", "day"))
)
RATES: Final = (
    RateScope("key", "5", rpm=60, tpm=10_000, concurrency=4),
    RateScope("tenant", "71", rpm=600, tpm=20_000, concurrency=9),
)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """By the name of a script, the last that it was told."""
    kept: dict[str, Any] = {}
    call = Script.call

    def noted(script: Script[Any], message: Any) -> Call:
        kept[script.name] = message
        return call(script, message)

    monkeypatch.setattr(Script, "call", noted)
    return kept


def hold_request(desk: Desk, request_id: str) -> HoldRequest:
    return HoldRequest(
        request_id=request_id,
        tenant=desk.tenant,
        key=desk.key,
        hold_nano=1_000,
        tokens=100,
        now_ms=desk.now_ms,
        deadline_ms=desk.now_ms + 600_000,
        spend=(*CAPS, SpendScope("session", "abc", registers.SESSION, 9_000)),
        rates=RATES,
        unknown_event=desk.body(request_id, usage=None, outcome="unknown"),
        ceiling_nano=1_500,
        overdraft_nano=7,
    )


def open_hold(desk: Desk) -> str:
    request_id = request_id_at(desk.now_ms)
    desks.run(desk.client, holds.place_call(hold_request(desk, request_id), epoch=desk.epoch))
    return request_id


def to_place(desk: Desk) -> Call:
    return holds.place_call(hold_request(desk, request_id_at(desk.now_ms)), epoch=desk.epoch)


def to_count(desk: Desk) -> Call:
    return holds.count_call(
        tenant=desk.tenant, key=desk.key, rates=RATES, now_ms=desk.now_ms, epoch=desk.epoch
    )


def to_settle(desk: Desk) -> Call:
    """Of a hold that Redis has lost: then everything counts that it is told."""
    request_id = request_id_at(desk.now_ms)
    attempts = [
        SettledAttempt(desk.body(request_id, attempt=0), 300, (1,)),
        SettledAttempt(desk.body(request_id, attempt=1), 200),
    ]
    return holds.settle_call(
        tenant=desk.tenant,
        request_id=request_id,
        now_ms=desk.now_ms,
        attempts=attempts,
        epoch=desk.epoch,
        spend=CAPS,
        tokens=50,
    )


def to_checkpoint(desk: Desk) -> Call:
    request_id = open_hold(desk)
    finished = [desk.body(request_id, attempt=i, cost_pico=0) for i in range(2)]
    return holds.checkpoint_call(
        tenant=desk.tenant,
        request_id=request_id,
        now_ms=desk.now_ms,
        lease_until_ms=desk.now_ms + 20_000,
        so_far=SettledAttempt(desk.body(request_id, attempt=2), 300, (1,)),
        epoch=desk.epoch,
        finished=finished,
    )


def to_void(desk: Desk) -> Call:
    return holds.void_call(
        tenant=desk.tenant, request_id=open_hold(desk), now_ms=desk.now_ms, epoch=desk.epoch
    )


def to_expire(desk: Desk) -> Call:
    return holds.expire_call(
        shard=registers.shard_of(desk.tenant),
        request_id=open_hold(desk),
        now_ms=desk.now_ms + holds.LEASE_MS + 1,
        epoch=desk.epoch,
    )


def to_credit(desk: Desk) -> Call:
    return credit_call(registers.tenant_key(desk.tag, desk.tenant), 70, version=2)


def to_acknowledge(desk: Desk) -> Call:
    desk.settle(desk.placed(), 100, 200, 300)
    stream = registers.stream_key(desk.tag)
    desk.client.xgroup_create(stream, registers.GROUP_LEDGER, id="0")
    read = desk.client.xreadgroup(registers.GROUP_LEDGER, "drain", {stream: ">"})
    first, second, third = (entry.decode() for entry, _ in read[0][1])
    row: declared.EntryRow = {
        "group": 1,
        "id": second,
        "nano": -3,
        "pico": 7,
        "missed_nano": 0,
        "missed_pico": 0,
    }
    spend = registers.spend_key(desk.tag, desk.tenant, kind="key", scope="5", bucket="d2026")
    return scripts.ACK.call(
        {
            "epoch_key": registers.epoch_key(desk.tag),
            "stream_key": stream,
            "epoch": desk.epoch,
            "drain": registers.GROUP_LEDGER,
            "exact": first,
            "registers": [{"key": registers.tenant_key(desk.tag, desk.tenant)}, {"key": spend}],
            "groups": [{"debited": "1 2", "missed": ""}, {"debited": "1", "missed": "2"}],
            "entries": [row, {**row, "group": 2, "id": third}],
        }
    )


def to_seed(desk: Desk) -> Call:
    spend = registers.spend_key(desk.tag, desk.tenant, kind="key", scope="5", bucket="d2026")
    return scripts.SEED.call(
        {
            "epoch_key": registers.epoch_key(desk.tag),
            "stream_key": registers.stream_key(desk.tag),
            "spend_key": spend,
            "epoch": desk.epoch,
            "last_posted": "0",
            "nano": 5,
            "pico": 3,
            "lasts_ms": 60_000,
        }
    )


def to_compare(desk: Desk) -> Call:
    keys = [registers.tenant_key(desk.tag, tenant) for tenant in (desk.tenant, desk.tenant + 64)]
    return scripts.COMPARE.call(
        {
            "epoch_key": registers.epoch_key(desk.tag),
            "stream_key": registers.stream_key(desk.tag),
            "leases_key": registers.leases_key(desk.tag),
            "epoch": desk.epoch,
            "last_posted": "0",
            "hold_prefix": registers.hold_key(desk.tag, ""),
            "registers": [{"key": key} for key in keys],
        }
    )


CALLS: Final = {
    "place": to_place,
    "count": to_count,
    "settle": to_settle,
    "checkpoint": to_checkpoint,
    "void": to_void,
    "expire": to_expire,
    "credit": to_credit,
    "ack": to_acknowledge,
    "seed": to_seed,
    "compare": to_compare,
}


def test_each_script_is_told_wrongly_here() -> None:
    assert sorted(CALLS) == sorted(script.name for script in scripts.ALL)


def listed_wrongly(parts: list[Any]) -> Iterator[list[Any]]:
    """Two in each other's place, one missing, one too many. Of two parts of a list the same value
    may be the other's: it is told apart by the part in which it stands."""
    for i, j in combinations(range(len(parts)), 2):
        if parts[i] != parts[j] and not is_same_value(parts[i], parts[j]):
            swapped = list(parts)
            swapped[i], swapped[j] = parts[j], parts[i]
            yield swapped
    for i in range(len(parts)):
        yield parts[:i] + parts[i + 1 :]
        yield [*parts[: i + 1], *parts[i:]]


def is_same_value(one: Any, other: Any) -> bool:
    """Of two parts."""
    pattern = re.compile(r"[a-z][-\d ]*(\n.*)?", re.S)
    both = [isinstance(each, str) and pattern.fullmatch(each) for each in (one, other)]
    return all(both) and one[0] == other[0]


def misplaced(call: Call) -> Iterator[Call]:
    for keys in listed_wrongly(call.keys):
        yield call._replace(keys=keys)
    for args in listed_wrongly(call.args):
        yield call._replace(args=args)
    for at, argument in enumerate(call.args):
        head, event = split_event(argument)
        for words in listed_wrongly(re.split(" (?=[a-z])", head)):
            wrong = " ".join(words)
            args = list(call.args)
            args[at] = f"{wrong} ".encode() + event if event else wrong
            yield call._replace(args=args)


def split_event(argument: Any) -> tuple[str, bytes]:
    """What stands before an event, which has no places of its own."""
    if isinstance(argument, str):
        return argument, b""
    before, brace, after = argument.partition(b"{")
    return before.decode().rstrip(" "), brace + after


@pytest.mark.parametrize("name", CALLS)
def test_what_is_told_in_another_place_is_refused(desk: Desk, name: str) -> None:
    # given
    call = CALLS[name](desk)
    before = desks.dump(desk.client)
    told_wrongly = 0
    # when
    for wrong in misplaced(call):
        with pytest.raises(redis.ResponseError):
            desks.run(desk.client, wrong)
        told_wrongly += 1
        # then
        assert desks.dump(desk.client) == before, wrong
    assert told_wrongly > 3
    desks.run(desk.client, call)
    assert (desks.dump(desk.client) == before) == (name == "compare"), "it was right as it was"


def of_another_kind(shape: Shape, message: Any) -> Iterator[Any]:
    for field in shape.fields:
        for wrong in WRONG_BY_PATTERN[field.kind]:
            yield {**message, field.name: wrong}
    for rows in shape.lists:
        parts = message[rows.name]
        for at, part in enumerate(parts):
            for wrong in of_another_kind(rows.shape, part):
                yield {**message, rows.name: [*parts[:at], wrong, *parts[at + 1 :]]}


@pytest.mark.parametrize("name", CALLS)
def test_a_value_of_another_kind_is_refused(desk: Desk, told: dict[str, Any], name: str) -> None:
    # given
    script = CALLS[name](desk).script
    message = told[name]
    before = desks.dump(desk.client)
    # when
    for wrong in of_another_kind(shape_of(script.told), message):
        with pytest.raises((redis.ResponseError, TypeError)):
            desks.run(desk.client, script.call(wrong))
        # then
        assert desks.dump(desk.client) == before, wrong


@pytest.mark.parametrize("name", CALLS)
def test_a_name_that_is_missing_is_never_sent(desk: Desk, told: dict[str, Any], name: str) -> None:
    script = CALLS[name](desk).script
    message = told[name]
    for missing in message:
        without = {key: value for key, value in message.items() if key != missing}
        with pytest.raises(KeyError, match=missing):
            script.call(without)


@pytest.mark.parametrize("name", CALLS)
def test_a_message_is_taken_by_no_other_script(desk: Desk, name: str) -> None:
    call = CALLS[name](desk)
    before = desks.dump(desk.client)
    for other in scripts.ALL:
        if other.name != name:
            with pytest.raises(redis.ResponseError):
                desks.run(desk.client, call._replace(script=other))
    assert desks.dump(desk.client) == before


@pytest.mark.parametrize("script", scripts.ALL, ids=lambda script: script.name)
def test_a_script_answers_by_the_names_that_are_declared(script: Script[Any]) -> None:
    files = [script.name, "minutes"] if script.name in ("place", "count") else [script.name]
    text = "\n".join(map(scripts.text_of, files))
    answers = {answer.name: answer.shape for answer in script.answers}
    assert set(re.findall(r"return (\w+)\{", text)) <= set(answers)
    for name, shape in answers.items():
        names = [field.name for field in shape.fields] + list(shape.words)
        names += [rows.name for rows in shape.lists]
        said = re.findall(rf"\b{name}\{{((?:[^{{}}]|\{{\}})*)\}}", text)
        assert said or not names, f"{script.name} never answers {name}"
        for fields in said:
            assert re.findall(r"(\w+) = ", fields) == names, f"{script.name}: {name}"


def test_no_script_counts_places_or_writes_a_lifetime() -> None:
    for path in sorted(scripts.FOLDER.glob("*.lua")):
        text = path.read_text()
        assert not re.findall(r"(?:KEYS|ARGV)\[", text), path.name
        assert not re.findall(r"\b\d{4,}\b", re.sub(r"--.*", "", text)), path.name


def test_both_sides_take_the_letters_from_the_order_declared() -> None:
    call = credit_call("tenant:{s07}:71", 70, version=2)
    assert (call.keys, call.args) == (
        ["tenant:{s07}:71"],
        [f"credit a70 b2 cactive d e f{desks.NOON_MS} g0"],
    )
    assert "'^credit a(%-?%d+) b(%d+) c(%S*) d([%-%d ]*) e([%-%d ]*) f(%d+) g(%d+)$'" in (
        protocol.prelude("credit", declared.Credit)
    )
