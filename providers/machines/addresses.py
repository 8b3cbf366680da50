"""Where a worker or pool may say it lives.

A worker key is bound to a network, and the address a worker names must lie in it whole: whoever
holds a key must not be able to point the gateway at anything else. Nobody lives on link-local
addresses, where clouds keep their metadata service.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from providers.outbound import egress
from providers.outbound.egress import EgressRefused, IpAddress

URL_LENGTH_MAX = 300


class AddressRefused(ValueError):
    """This address may not be called; the text is for the person who configures it."""


def checked_base_url(url: str, *, network: str | None) -> str:
    """The base URL without a trailing slash, every address of its host checked.

    A name over http is replaced by the address that was checked, so that it cannot be pointed
    elsewhere later; over https the certificate vouches for the name.
    """
    if len(url) > URL_LENGTH_MAX:
        raise AddressRefused(f"the base URL is longer than {URL_LENGTH_MAX} characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AddressRefused("the base URL is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise AddressRefused("the base URL must be absolute, http or https")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise AddressRefused("the base URL must hold no user, password, query or fragment")
    addresses = _resolve(parts.hostname, port or (443 if parts.scheme == "https" else 80))
    for address in addresses:
        _check(address, network)
    host = parts.hostname if parts.scheme == "https" else str(addresses[0])
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}{f':{port}' if port else ''}{parts.path.rstrip('/')}"


def _resolve(host: str, port: int) -> list[IpAddress]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise AddressRefused(f"the host {host} does not resolve") from None
    return [ipaddress.ip_address(entry[4][0]) for entry in found]


def _check(address: IpAddress, network: str | None) -> None:
    """Other ways to write an IPv4 address than the mapped one are refused whole: a machine of ours
    has no need of them."""
    address = getattr(address, "ipv4_mapped", None) or address
    if any(egress.ipv4s_inside(address)):
        raise AddressRefused(f"{address} leads through a tunnel to an address that is not checked")
    try:
        egress.check_address(address, approved=True)
    except EgressRefused as refused:
        raise AddressRefused(str(refused)) from None
    if network is not None and address not in ipaddress.ip_network(network):
        raise AddressRefused(f"{address} is outside this worker key's network {network}")
