"""Which addresses other machines can reach."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether the address can be reached from this machine only.

    Args:
        host: an IPv4 or IPv6 address, or a name; of names only `localhost` is known to be one.
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
