"""Server-sent events out of bytes that arrive in any pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import ProtocolError
from providers.wires import sse
from providers.wires.sse import Event, Splitter

STREAM = (
    b": keep-alive\n\n"
    b'data: {"a": 1}\n\n'
    b"event: ping\ndata: {}\n\n"
    b"data: one\ndata: two\n\n"
    b"id: 7\nretry: 10\ndata:close\n\n"
    b"data: [DONE]\n\n"
)
EVENTS = [
    (b"", b""),
    (b"", b'{"a": 1}'),
    (b"ping", b"{}"),
    (b"", b"one\ntwo"),
    (b"", b"close"),
    (b"", b"[DONE]"),
]


def read(pieces: list[bytes]) -> list[Event]:
    splitter = Splitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events + splitter.end()


def test_events_come_out_whole_with_their_bytes() -> None:
    events = read([STREAM])

    assert [(event.name, event.data) for event in events] == EVENTS
    assert b"".join(event.raw for event in events) == STREAM


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM)), max_size=12))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[left:right] for left, right in zip(at, at[1:], strict=False)]

    assert read(pieces) == read([STREAM])


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_other_line_ends_are_understood(line_end: bytes, size: int) -> None:
    stream = STREAM.replace(b"\n", line_end)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]

    assert [(event.name, event.data) for event in read(pieces)] == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_byte_order_mark_before_the_stream_is_no_part_of_it(size: int) -> None:
    stream = sse.BYTE_ORDER_MARK + STREAM
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]

    assert read(pieces) == read([STREAM])


def test_data_of_several_lines_is_shown_in_one() -> None:
    (event,) = read([b'event: x\r\n: note\r\ndata: {"a":\r\ndata: 1}\r\n\r\n'])

    assert event.data == b'{"a":\n1}'
    assert event.in_one_line() == (b'event: x\ndata: {"a": 1}\n\n', b'{"a": 1}', b"x")


def test_a_last_event_without_its_blank_line_is_read_at_the_end() -> None:
    assert [event.data for event in read([b"data: a\n\ndata: b"])] == [b"a", b"b"]


def test_an_event_without_end_is_refused_at_the_bound() -> None:
    splitter = Splitter(event_bytes_max=100)
    splitter.feed(b"data: " + b"x" * 90)

    with pytest.raises(ProtocolError, match="longer than 100 bytes"):
        splitter.feed(b"x" * 10)


def test_many_small_events_never_reach_the_bound() -> None:
    splitter = Splitter(event_bytes_max=100)

    events = splitter.feed(b"data: x\n\n" * 1_000)

    assert len(events) == 1_000
    assert splitter.tail == b""


def test_a_long_event_in_small_pieces_costs_no_more_than_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given every byte that is copied out of the kept tail is counted
    copied = 0

    class Counted(bytearray):
        def __bytes__(self) -> bytes:
            nonlocal copied
            copied += len(self)
            return bytes(memoryview(self))

    monkeypatch.setattr(sse, "bytearray", Counted, raising=False)
    splitter = Splitter()

    # when
    events = [e for _ in range(2_000) for e in splitter.feed(b"x: y\n")]
    events += splitter.feed(b"data: z\n\n")

    # then the tail was copied once, when the event was complete
    assert [event.data for event in events] == [b"z"]
    assert copied == 10_000 + 9
