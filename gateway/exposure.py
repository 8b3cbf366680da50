"""Whether the console can be reached from elsewhere, and what follows from it. Pure."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

LOCAL_NAME: Final = "localhost"


def is_local(host: str) -> bool:
    """Whether a host name or address is this machine's own and nobody else's."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == LOCAL_NAME or host.endswith(f".{LOCAL_NAME}")


def operators_need_second_factor(chosen: str, *, listens_on: str, public_url: str) -> bool:
    """`unless-local`: as soon as the console listens on, or is told to be at, another address."""
    if chosen != "unless-local":
        return chosen == "always"
    return not (is_local(listens_on) and is_local(urlsplit(public_url).hostname or ""))
