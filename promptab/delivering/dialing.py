"""Connections to where a webhook may go, and nowhere else: looked up once, checked, and then dialled by its digits.

A name that is checked and looked up again to connect may have moved to another address in between (DNS rebinding).
Here the address that was checked is the one that is dialled, and the connected socket has to say so too before a
byte is sent. TLS goes by the name, as ever.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import httpcore2

from promptab.alerts.addresses import is_public
from promptab.alerts.channel import is_allowed

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Looks a host up: host, port -> addresses in digits."""

MOST_ADDRESSES = 4
"""Of a host with several, those that are tried."""


class NotPublicError(Exception):
    """The host leads to where a webhook may not go."""


async def resolve(host: str, port: int) -> list[str]:
    """Ask the system. Raises `OSError` for a host that there is none of."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Dialer(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses, and to any address of the hosts that are allowed by name."""

    def __init__(
        self,
        allowed_hosts: tuple[str, ...],
        resolve: Resolve = resolve,
        beneath: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allowed_hosts = allowed_hosts
        self._resolve = resolve
        self._beneath = beneath or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        allowed = is_allowed(host, self._allowed_hosts)
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
                chosen = [address for address in found if allowed or is_public(address)]
                if not chosen:
                    raise NotPublicError(host)
                return await self._dial(chosen[:MOST_ADDRESSES], port, socket_options, allowed=allowed)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout from error
        except UnicodeError as error:
            # a label that is empty or too long to be asked for
            raise httpcore2.ConnectError("no name of a host") from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error

    async def _dial(
        self, addresses: Sequence[str], port: int, options: Iterable[Any] | None, *, allowed: bool
    ) -> httpcore2.AsyncNetworkStream:
        failure: httpcore2.ConnectError | None = None
        for address in addresses:
            try:
                stream = await self._beneath.connect_tcp(address, port, socket_options=options)
            except httpcore2.ConnectError as error:
                failure = error
                continue
            peer = stream.get_extra_info("server_addr")
            if allowed or (peer and is_public(str(peer[0]))):
                return stream
            await stream.aclose()
            raise NotPublicError(address)
        raise failure or httpcore2.ConnectError("no address")
