"""Which addresses may be called, and that nothing else ever is."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from gateway.clocks.stopwatch import SystemClock
from providers.chat import UpstreamCall
from providers.errors import ConnectFailed, OwnTrouble, ProviderError, StreamBroken
from providers.outbound import egress, small_requests
from providers.outbound.egress import EgressRefused
from providers.outbound.small_requests import Question, Reply
from providers.outbound.upstream import RESOLVE_EVERY_S, Answer, Upstream
from tests.fakes.certificate import self_signed
from tests.patience import PATIENCE_S, ran_s


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "64:ff9b::a00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "::10.0.0.1",
        "::8.8.8.8",
        "fec0::1",
        "64:ff9b:1::1",
        "64:ff9b:1::808:808",
        "::ffff:0:10.0.0.1",
        "::ffff:0:8.8.8.8",
        "2001:db8::1",
        "2001:2::1",
        "2001:20::1",
        "2001::1",
        "2002:a9fe:a9fe::1",
        "3fff::1",
        "100::1",
        "5f00::1",
        "4000::1",
        "2606:4700::5efe:10.0.0.1",
        "192.0.0.9",
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.7",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_an_external_provider_is_never_called_inside(address: str) -> None:
    with pytest.raises(EgressRefused):
        egress.check_address(ipaddress.ip_address(address), approved=False)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        "fe80::1",
        "100.100.100.200",
        "::ffff:100.100.100.200",
        "fd00:ec2::254",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "::ffff:0:169.254.169.254",
        "2606:4700::5efe:169.254.169.254",
    ],
)
def test_metadata_addresses_are_never_called_by_anybody(address: str) -> None:
    with pytest.raises(EgressRefused):
        egress.check_address(ipaddress.ip_address(address), approved=True)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1", "2002:101:101::1"],
)
def test_a_public_address_is_called(address: str) -> None:
    egress.check_address(ipaddress.ip_address(address), approved=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "192.168.7.7"])
def test_an_approved_pool_may_live_inside(address: str) -> None:
    egress.check_address(ipaddress.ip_address(address), approved=True)


@pytest.mark.parametrize(
    ("url", "approved"),
    [
        ("http://api.example.com/v1", False),
        ("ftp://api.example.com/v1", True),
        ("//api.example.com/v1", True),
        ("https:///v1", True),
        ("https://user:secret@api.example.com/v1", True),
        ("https://api.example.com:notaport/v1", True),
        ("not a url", True),
    ],
)
def test_a_url_of_the_wrong_form_is_refused(url: str, approved: bool) -> None:
    with pytest.raises(EgressRefused):
        egress.origin_of(url, approved=approved)


def test_a_name_is_refused_where_any_of_its_addresses_is() -> None:
    # given
    origin = egress.origin_of("https://localhost/v1", approved=False)
    # when / then
    with pytest.raises(EgressRefused):
        asyncio.run(egress.resolve(origin))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "/etc/passwd",
        "cat.png",
        "//169.254.169.254/latest/meta-data",
        "ftp://example.com/a.png",
        "gopher://example.com/",
        "http://169.254.169.254/latest/meta-data",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://127.1/",
        "http://10.0.0.9/a.png",
        "http://[::1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fec0::1]/",
        "http://localhost:8000/",
        "http://LOCALHOST./",
        "http://worker.internal/",
        "http://metadata.google.internal/",
        "http://printer.local/",
        "http://nas.home.arpa/",
        "http://redis/",
        "http://1\u0369.254.169.254/".replace("\u0369", "\uff16\uff19"),
        "http://169\u3002254\u3002169\u3002254/",
        "http://%31%36%39.254.169.254/",
        "http://example.com\\@169.254.169.254/",
        "http://user@169.254.169.254/",
        " http://169.254.169.254/",
        "http://example.com/\n",
        "http://example.com:0/",
        "http://[::1",
        "",
    ],
)
def test_nobody_is_sent_to_fetch_what_is_private(url: str) -> None:
    with pytest.raises(EgressRefused):
        egress.check_fetched(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png?size=1",
        "http://example.com:8080/a%20b.png",
        "https://1.1.1.1/a.png",
        "https://[2606:4700::1111]/",
        "https://m\u00fcnchen.example.com/",
    ],
)
def test_a_public_address_may_be_fetched(url: str) -> None:
    egress.check_fetched(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/hook",
        "https://[fec0::1]/hook",
        "https://localhost/hook",
        "https://hooks.internal/hook",
        "https://hooks/hook",
        "https://example.com:0/hook",
        "http://example.com/hook",
        f"https://{'a' * 70}.example.com/hook",
    ],
)
def test_an_address_that_can_never_be_reached_is_refused_at_once(url: str) -> None:
    with pytest.raises(EgressRefused):
        egress.check_reachable(url, approved=False)


def test_a_name_that_nobody_answers_for_may_be_one_later() -> None:
    egress.check_reachable("https://nobody.invalid/hook", approved=False)
    egress.check_reachable("http://127.0.0.1:9/hook", approved=True)


async def test_a_name_is_resolved_within_the_connect_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a resolver that says nothing until it is let go
    let_go = threading.Event()

    def silent(*args: object, **kwargs: object) -> list[object]:
        let_go.wait(PATIENCE_S)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    upstream = Upstream(connect_timeout_s=0.2, clock=SystemClock())
    began, began_by_machine = time.monotonic(), ran_s()

    # when: several at once, and one afterwards
    calls = [
        upstream.open(UpstreamCall("https://slow.example.com/v1", {}, b"{}"), approved=False)
        for _ in range(3)
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    lasted_s, ran = time.monotonic() - began, ran_s() - began_by_machine
    let_go.set()
    upstream.close()

    # then it is our resolver's fault, and not the seller's
    assert [type(problem) for problem in found] == [OwnTrouble] * 3
    assert "not resolved in time" in str(found[0])
    assert lasted_s >= 0.2
    assert ran < 2


class LaterClock:
    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.mark.parametrize("still_s", [0.0, 60.0])
async def test_a_process_that_stood_still_during_a_connect_connects_once_more(
    still_s: float,
) -> None:
    # given: a server whose queue is full
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        before = [await asyncio.open_connection("127.0.0.1", port)]
        clock = LaterClock()
        # Shorter than the second after which the kernel tries again.
        upstream = Upstream(connect_timeout_s=0.9, clock=clock)
        asked = UpstreamCall(f"http://127.0.0.1:{port}/v1", {}, b"{}")
        opening = asyncio.ensure_future(upstream.open(asked, approved=True))
        await asyncio.sleep(0.2)
        # when: there is room, and our clock has run on
        server.accept()[0].close()
        clock.ahead_s = still_s
        if still_s:
            taken, _ = await asyncio.to_thread(server.accept)
            with taken:
                taken.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        [found] = await asyncio.gather(opening, return_exceptions=True)
        before[0][1].close()
        upstream.close()
    # then
    if still_s:
        assert isinstance(found, Answer)
        assert found.status == 200
    else:
        assert type(found) is ConnectFailed


async def test_an_address_that_was_checked_serves_while_the_resolver_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a host that was called before, and whose name is due again
    server = await serve(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    clock = LaterClock()
    upstream = Upstream(connect_timeout_s=0.3, clock=clock)
    port = server.sockets[0].getsockname()[1]
    asked = UpstreamCall(f"http://localhost:{port}/v1", {}, b"{}")
    (await upstream.open(asked, approved=True)).close()
    let_go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: let_go.wait(PATIENCE_S) or [])
    clock.ahead_s = RESOLVE_EVERY_S + 1

    # when
    answer = await upstream.open(asked, approved=True)

    # then
    assert answer.status == 200
    let_go.set()
    answer.close()
    upstream.close()
    server.close()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"])
def test_a_byte_a_moment_is_no_answer(head: bytes) -> None:
    """Whatever drips, the whole has one deadline."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listener.accept()
        connection.sendall(head)
        while not stop.wait(0.05):
            with contextlib.suppress(OSError):
                connection.sendall(b"x" if head else b"H")
        connection.close()

    thread = threading.Thread(target=drip)
    thread.start()
    began = ran_s()

    # when
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/models"
    reply = small_requests.ask_one(
        Question(url, {}, approved=True), timeout_s=0.4, bytes_max=10_000
    )

    # then
    assert reply.body == b""
    assert reply.problem
    assert ran_s() - began < 3
    stop.set()
    thread.join()
    listener.close()


async def test_an_answer_that_is_too_long_is_none() -> None:
    server = await serve(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000)
    question = Question(f"http://{address_of(server)}/", {}, approved=True)

    reply = await asyncio.to_thread(small_requests.ask_one, question, timeout_s=2, bytes_max=4999)

    assert reply == Reply(problem="it answered with more than 4,999 bytes")
    server.close()


async def call(url: str, *, approved: bool = True, **headers: str) -> tuple[int, bytes]:
    upstream = Upstream(connect_timeout_s=2, clock=SystemClock())
    try:
        answer = await upstream.open(UpstreamCall(url, headers, b"{}"), approved=approved)
        body = b""
        while data := await answer.read():
            body += data
        answer.close()
        return answer.status, body
    finally:
        upstream.close()


async def serve(answer: bytes, tls: ssl.SSLContext | None = None) -> asyncio.Server:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)


def address_of(server: asyncio.Server) -> str:
    return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    # given
    server = await serve(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", self_signed(tmp_path))
    # when / then
    with pytest.raises(ConnectFailed, match="self-signed certificate"):
        await call(f"https://{address_of(server)}/v1")
    server.close()


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    # given
    elsewhere = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    server = await serve(elsewhere)
    # when / then
    assert await call(f"http://{address_of(server)}/v1") == (302, b"")
    server.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000, "headers of the answer are too long"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
            "compressed",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "in the middle"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "in the middle"),
    ],
)
async def test_an_answer_that_is_none_breaks(answer: bytes, error: str) -> None:
    # given
    server = await serve(answer)
    # when / then
    with pytest.raises(StreamBroken, match=error):
        await call(f"http://{address_of(server)}/v1")
    server.close()


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    # given
    server = await serve(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    # when / then
    assert await call(f"http://{address_of(server)}/v1") == (200, b"all of it")
    server.close()


async def test_an_informational_answer_is_passed_over() -> None:
    # given
    server = await serve(
        b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    )
    # when / then
    assert await call(f"http://{address_of(server)}/v1") == (200, b"ok")
    server.close()


async def test_a_line_break_in_a_header_is_refused() -> None:
    # given
    server = await serve(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    # when / then
    with pytest.raises(ProviderError, match="line break"):
        await call(f"http://{address_of(server)}/v1", authorization="Bearer x\r\nhost: elsewhere")
    server.close()


async def test_a_port_that_nobody_listens_on_is_a_failed_connect() -> None:
    with pytest.raises(ConnectFailed):
        await call("http://127.0.0.1:9/v1")


async def test_reading_stops_when_nobody_takes_the_bytes() -> None:
    # given: a server that sends until it is stopped
    sent = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    upstream = Upstream(connect_timeout_s=2, clock=SystemClock())
    # when: the head is read, and then nothing for a while
    answer = await upstream.open(
        UpstreamCall(f"http://{address_of(server)}/", {}, b"{}"), approved=True
    )
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.1)
    # then: what is buffered is what the kernel's sockets hold
    assert len(await answer.read() or b"") <= 4 * 65536
    assert sent < 32 * 1024 * 1024
    answer.close()
    server.close()
