"""Which addresses may be called, and named to others who would fetch them, decided beforehand.

An external provider is reached by https at public addresses only. What an operator approved
(workers, attached pools) may live on a private network and speak http. Nobody reaches
link-local addresses, where clouds keep their metadata service. The address that was checked
is the one that is connected to: names are resolved here, once, and pinned.
"""

import asyncio
import ipaddress
import socket
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# Cloud metadata services outside the link-local ranges.
METADATA_ADDRESSES: Final = frozenset(
    ipaddress.ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")
)
# IPv4 at the end of IPv6, beyond what the standard library takes apart: translated by NAT64
# (RFC 6052, 8215), by SIIT (RFC 2765), and the old compatible form.
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
_ENDING_IN_IPV4: Final = (
    NAT64,
    NAT64_LOCAL,
    ipaddress.IPv6Network("::ffff:0:0:0/96"),
    ipaddress.IPv6Network("::/96"),
)
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
_LOOPBACK: Final = 1  # ::1, and below it the unspecified address
# IANA's registries of special addresses, where the standard library knows an older one. Of IPv6
# only this is handed out to hosts at all.
GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_SPECIAL: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # relays to 6to4, given up
        "198.18.0.0/15",  # benchmarks
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
# Names that mean a machine or a network of somebody's own.
_PRIVATE_NAMES: Final = frozenset(
    "localhost local internal intranet private corp home lan localdomain onion".split()
)
_HOME: Final = ".home.arpa"
NAME_SHOWN_MAX: Final = 100
LOOK_UP_WAIT_S: Final = 2.0
# Beside the loop's own threads: a name that nobody answers for keeps one for a while.
_resolvers = ThreadPoolExecutor(max_workers=128, thread_name_prefix="resolve")


class EgressRefused(Exception):
    """This address must not be called; the text says why and holds no credential."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of an upstream, and whether an operator approved it."""

    scheme: str
    host: str
    port: int
    approved: bool


def origin_of(url: str, *, approved: bool) -> Origin:
    """The origin of an absolute URL; EgressRefused where its form alone is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise EgressRefused(f"not a URL: {problem}") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise EgressRefused("an upstream needs an absolute http or https URL")
    if parts.username is not None or parts.password is not None:
        raise EgressRefused("an upstream URL must not carry a user or password")
    if parts.scheme == "http" and not approved:
        raise EgressRefused("an external provider is called by https only")
    if port == 0:
        raise EgressRefused("nobody listens on port 0")
    return Origin(
        scheme=parts.scheme,
        host=parts.hostname.rstrip("."),
        port=port or (443 if parts.scheme == "https" else 80),
        approved=approved,
    )


def check_address(address: IpAddress, *, approved: bool) -> None:
    """Raise EgressRefused where this address is out of bounds."""
    for inner in ipv4s_inside(address):
        check_address(inner, approved=approved)
    if address.is_link_local or address in METADATA_ADDRESSES:
        raise EgressRefused(f"{address} is a link-local or metadata address")
    if address.is_multicast or address.is_unspecified:
        raise EgressRefused(f"{address} is not the address of a host")
    if not approved and not _is_public(address):
        raise EgressRefused(f"{address} is not a public address")


def _is_public(address: IpAddress) -> bool:
    """Whether the address registries call it globally reachable, or it is translated from one
    that is."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None or address in NAT64:
            return True  # the IPv4 address was checked
        if address not in GLOBAL_UNICAST:
            return False
        if address.sixtofour is not None:
            return True
    return address.is_global and not any(
        address in network for network in _SPECIAL if network.version == address.version
    )


def ipv4s_inside(address: IpAddress) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 hosts that an IPv6 address leads to, in whichever form they are written in it."""
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    is_isatap = (number >> 32) & 0xFFFFFFFF in _ISATAP
    if is_isatap or (number > _LOOPBACK and any(address in one for one in _ENDING_IN_IPV4)):
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address in NAT64_LOCAL:  # a prefix of 48 bits puts it around the bits 64 to 71
        yield ipaddress.IPv4Address((number >> 64 & 0xFFFF) << 16 | (number >> 40 & 0xFFFF))


async def resolve(origin: Origin) -> str:
    """The address to connect to. Every address of the name must pass, or none is used."""
    literal = _literal(origin.host)
    if literal is not None:
        check_address(literal, approved=origin.approved)
        return str(literal)
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_resolvers, _look_up, origin)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        check_address(ipaddress.ip_address(address), approved=origin.approved)
    # IPv4 first: a host without a route over IPv6 would fail on every other connect.
    return min(addresses, key=lambda text: ":" in text)


def _look_up(origin: Origin) -> list[tuple[Any, ...]]:
    try:
        return list(socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM))
    except UnicodeError:  # a label that is empty or too long
        raise EgressRefused(f"{origin.host[:NAME_SHOWN_MAX]} is no name of a host") from None


def check_reachable(url: str, *, approved: bool, wait_s: float = LOOK_UP_WAIT_S) -> None:
    """EgressRefused where this could never be called: by its form, or because its name stands for
    addresses that are out of bounds. A name that nobody answers for now may be one later."""
    origin = origin_of(url, approved=approved)
    literal = _literal(origin.host)
    if literal is not None:
        check_address(literal, approved=approved)
        return
    if not approved and is_private_name(origin.host):
        raise EgressRefused(f"{origin.host} is a name of a private network")
    try:
        found = _resolvers.submit(_look_up, origin).result(timeout=wait_s)
    except (OSError, TimeoutError):
        return
    for entry in found:
        check_address(ipaddress.ip_address(entry[4][0]), approved=approved)


def check_fetched(url: str) -> None:
    """EgressRefused where whoever is sent this address, to fetch it, would fetch a file of its own
    or look into a private network. Other spellings of an address are what they stand for."""
    if any(c <= " " or c in "\\\x7f" for c in url):
        raise EgressRefused("an address must not hold spaces, control characters or backslashes")
    try:
        parts = urlsplit(unicodedata.normalize("NFKC", url))
        has_port = parts.port is not None
    except ValueError as problem:
        raise EgressRefused(f"not a URL: {problem}") from None
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise EgressRefused("an address to be fetched is an absolute http or https URL")
    if parts.username is not None or parts.password is not None:
        raise EgressRefused("an address to be fetched must not carry a user or password")
    if has_port and parts.port == 0:
        raise EgressRefused("nobody listens on port 0")
    host = parts.hostname.replace("\u3002", ".").rstrip(".")
    if literal := _literal(host) or _odd_ipv4(host):
        check_address(literal, approved=False)
    elif "%" in host or is_private_name(host):
        raise EgressRefused("its host is a name of a private network")


def is_private_name(host: str) -> bool:
    """Whether a name without a dot, or with a last label that is nobody's in public."""
    host = host.lower()
    _, dot, last = host.rpartition(".")
    return not dot or last in _PRIVATE_NAMES or host.endswith(_HOME)


def _literal(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _odd_ipv4(host: str) -> ipaddress.IPv4Address | None:
    """`127.1`, `0x7f000001` and `2130706433` are addresses to most resolvers."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None
