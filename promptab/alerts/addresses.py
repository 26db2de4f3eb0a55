"""Which addresses of the internet a webhook may go to: public ones, and nothing that only looks like one.

By the registries of special-purpose addresses (RFC 6890 and what came after it), written out: what Python's
`ipaddress` calls global differs from release to release.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_CLOSED_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a provider's translation, and inside some clouds
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # public by its number, and every Azure machine's own host
        "169.254.0.0/16",  # link-local, where clouds keep the credentials of their machines
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_OPEN_6 = IPv6Network("2000::/3")
"""All that is assigned to the public internet so far."""
_CLOSED_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""NAT64 (RFC 6052): the public way to IPv4 from where there is none."""


def is_public(address: str) -> bool:
    """Return whether a connection to this address, in digits, leaves for the public internet.

    An IPv6 address that stands for one of IPv4 (mapped, 6to4, NAT64) is as public as that. Text that is no address
    is not public.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv4Address):
        return not any(found in network for network in _CLOSED_4)
    if found.scope_id is not None:
        return False
    embedded = _embedded(found)
    if embedded is not None:
        return is_public(str(embedded))
    return found in _OPEN_6 and not any(found in network for network in _CLOSED_6)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that it stands for, if it does."""
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
