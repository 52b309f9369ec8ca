"""Where a doorbell hangs: `ip:port`, or `[ip]:port` for IPv6. Literal addresses only: nothing here asks a DNS."""

from __future__ import annotations

import ipaddress
import logging
import os
import re

logger = logging.getLogger(__name__)

#: The IP address at which other peers reach this process; the webhook sets it to the pod's. Empty or `off`: none.
ADDRESS_VARIABLE = "PGMQ_BUS_ADDRESS"

_OFF = ("", "off")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", re.ASCII)


def advertised_ip(local_ip: str | None) -> str | None:
    """The IP address to tell other peers; None when there is none to tell or the environment says `off`.

    Args:
        local_ip: This end's address of the connection to the database: whoever reaches the same server will mostly
            reach us there, too.
    """
    given = os.environ.get(ADDRESS_VARIABLE)
    if given is None:
        return _usable(local_ip or "")
    if given.strip().lower() in _OFF:
        return None
    usable = _usable(given.strip())
    if usable is None:
        logger.warning(
            "%s=%r is not an IP address that other peers could reach: doing without a doorbell", ADDRESS_VARIABLE, given
        )
    return usable


def parse_address(address: str) -> tuple[str, int] | None:
    """IP address and port; None when it is not of that form."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return None
    ip, port = _usable(match[1] or match[2]), int(match[3])
    return (ip, port) if ip is not None and 0 < port < 2**16 else None


def format_address(ip: str, port: int) -> str:
    """What `parse_address` takes apart."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _usable(ip: str) -> str | None:
    """The address in its usual form; None for what is none, or means nothing to another host."""
    try:
        parsed = ipaddress.ip_address(ip)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_unspecified or parsed.is_multicast or (parsed.version == 6 and parsed.is_link_local):
        return None
    return str(parsed)
