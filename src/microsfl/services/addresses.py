"""What stands for who is at a network address."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

ADDRESS = "at "  # before the name of a caller without an identity: no identity has a space in it
ADDRESSES_KEPT = 4096


@lru_cache(ADDRESSES_KEPT)
def network_of(address: str) -> str:
    """What stands for who is at an address: of IPv6 the first 64 bits, as each host has all that share them."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or ipaddress.ip_network((found, 64), strict=False))
