"""Which addresses may be called, and that nothing else ever is."""

import asyncio
import ipaddress
import ssl
from pathlib import Path

import pytest

from gateway.dataplane import egress
from gateway.dataplane.egress import EgressRefused
from gateway.dataplane.stopwatch import SystemClock
from gateway.dataplane.upstream import Upstream
from providers.chat import UpstreamCall
from providers.errors import ConnectFailed, ProviderError, StreamBroken
from tests.fakes.certificate import self_signed


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
    ],
)
def test_metadata_addresses_are_never_called_by_anybody(address: str) -> None:
    with pytest.raises(EgressRefused):
        egress.check_address(ipaddress.ip_address(address), approved=True)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
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
