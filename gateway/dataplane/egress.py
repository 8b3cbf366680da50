"""Which addresses the gateway may call, decided before it connects.

An external provider is reached by https at public addresses only. What an operator approved
(workers, attached pools) may live on a private network and speak http. Nobody reaches
link-local addresses, where clouds keep their metadata service. The address that was checked
is the one that is connected to: names are resolved here, once, and pinned.
"""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# Cloud metadata services outside the link-local ranges.
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(text) for text in ("100.100.100.200", "fd00:ec2::254", "fd20:ce::254")
)
# Ways to write an IPv4 address in IPv6 that the standard library does not take apart.
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


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
    return Origin(
        scheme=parts.scheme,
        host=parts.hostname.rstrip("."),
        port=port or (443 if parts.scheme == "https" else 80),
        approved=approved,
    )


def check_address(address: IpAddress, *, approved: bool) -> None:
    """Raise EgressRefused where this address is out of bounds."""
    inner = ipv4_inside(address)
    if inner is not None:
        check_address(inner, approved=approved)
    if address.is_link_local or address in METADATA_ADDRESSES:
        raise EgressRefused(f"{address} is a link-local or metadata address")
    if address.is_multicast or address.is_unspecified:
        raise EgressRefused(f"{address} is not the address of a host")
    if not approved and not (inner or address).is_global:
        raise EgressRefused(f"{address} is not a public address")


def ipv4_inside(address: IpAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 host that an IPv6 address leads to: mapped, NAT64, 6to4, Teredo or compatible."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour
    if address.teredo:
        return address.teredo[1]
    is_written_in = address in NAT64 or (address in IPV4_COMPATIBLE and int(address) > 0xFFFF)
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if is_written_in else None


async def resolve(origin: Origin) -> str:
    """The address to connect to. Every address of the name must pass, or none is used."""
    literal = _literal(origin.host)
    if literal is not None:
        check_address(literal, approved=origin.approved)
        return str(literal)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        check_address(ipaddress.ip_address(address), approved=origin.approved)
    # IPv4 first: a host without a route over IPv6 would fail on every other connect.
    return min(addresses, key=lambda text: ":" in text)


def _literal(host: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
