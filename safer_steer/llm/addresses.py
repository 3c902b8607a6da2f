"""Addresses of endpoints: which of them are this machine's own, and the proxy for the others."""

import ipaddress
import re
import socket
import urllib.request
from functools import lru_cache
from urllib.parse import urlsplit

_VERSION = re.compile(r"/v\d+(?:\w+)?(?:/|$)")


@lru_cache(maxsize=256)
def proxy_of(url: str) -> str | None:
    """The proxy of the environment (HTTPS_PROXY, NO_PROXY, ...) for an address, None for this machine's own; looked up
    once.
    """
    parts = urlsplit(url)
    if is_loopback(parts.hostname or "") or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, however it is written: a name, 127.1, ::1, ::ffff:127.0.0.1, all zeros."""
    name = host.strip("[]").rstrip(".").lower()
    if name in ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback") or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))
        except (OSError, ValueError):
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def with_version(url: str) -> str | None:
    """The address with /v1, where it names no version; None where it does."""
    return None if _VERSION.search(urlsplit(url).path) else f"{url.rstrip('/')}/v1"
