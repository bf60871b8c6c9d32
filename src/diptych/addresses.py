"""Hosts and their addresses: which may be asked for a picture at all, by one rule for all that fetches.

The trick that both the server and the crawl rest on: a host's addresses are resolved once, all of them must be public,
and the connection goes to an address that was checked, so that a name which answers otherwise the second time gains
nothing.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

from diptych.errors import ConfigError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]  # host and port to addresses; OSError where there is none

PORTS = {"http": 80, "https": 443}
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")  # NAT64: the last four bytes are an IPv4 address


def is_public(address: str) -> bool:
    """Whether an address may be asked: not private, loopback, link-local, multicast, reserved or unspecified.

    An IPv6 address that carries an IPv4 address counts as that one.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
        elif ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


def look_up(host: str, port: int) -> Sequence[str]:
    """All addresses of a host, as the system gives them.

    Raises:
        OSError, UnicodeError: it has none, or its name is no name.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def resolve(host: str, port: int) -> Sequence[str]:
    """`look_up`, on a thread."""
    return await asyncio.to_thread(look_up, host, port)


class HostList:
    """Hosts that a user allows.

    Args:
        entries: hosts, e.g. "example.org"; "*.example.org" for those below it; "example.org:8443" for another port
            than 80 and 443.
        option: that the entries come from, for the error.

    Raises:
        ConfigError: an entry is no host.
    """

    def __init__(self, entries: Iterable[str], option: str) -> None:
        self._names = frozenset(_checked_host(entry, option) for entry in entries)

    def holds(self, host: str, port: int | None, scheme: str) -> bool:
        """Whether a host is on the list, as URLs have it: ASCII, lower case, without a dot at its end."""
        ending = "" if port in (None, PORTS[scheme]) else f":{port}"
        labels = host.split(".")
        above = ("*." + ".".join(labels[i:]) for i in range(1, len(labels)))
        return any(name + ending in self._names for name in (host, *above))


def _checked_host(entry: str, option: str) -> str:
    name, _, port = entry.strip().lower().partition(":")
    below = "*." if name.startswith("*.") else ""
    name = name.removeprefix(below)
    with contextlib.suppress(UnicodeError):  # then it is no host
        name = name.encode("idna").decode()  # as URLs have it
    is_host = all(name.split(".")) and name.isascii() and not any(c in name for c in "/*@? ")
    if not is_host or (port and not port.isdigit()):
        raise ConfigError(f"{option} takes a host, e.g. example.org or *.example.org. Got {entry!r}.")
    return below + name + (f":{port}" if port else "")
