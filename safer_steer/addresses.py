"""Addresses of model servers: which only the machine itself reaches, and which lack their version."""

import ipaddress
import re
import socket
from urllib.parse import urlsplit

_VERSION = re.compile(r"/v\d+(?:\w+)?(?:/|$)")


def is_loopback(url: str) -> bool:
    """Whether a base URL leads to the machine that uses it: 127.x in any spelling, ::1, localhost, "any" addresses, and
    a `service:` of the run, which listens on loopback.

    No name is looked up: one that this machine's hosts file gives a 127.x may be another node's for the others.
    """
    if url.startswith("service:"):
        return True
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f.1, 2130706433, 0
        except OSError:
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def with_version(url: str) -> str | None:
    """The address with /v1, where it names no version; None where it does."""
    return None if _VERSION.search(urlsplit(url).path) else f"{url.rstrip('/')}/v1"
