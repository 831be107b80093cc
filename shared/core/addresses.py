"""Where a caller may have us connect to: the form of a URL, and which addresses are public.

A name is judged by the addresses that it has when it is used, never by its text.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

URL_MAX_CHARS = 2048
PORT_MAX = 65_535
_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<name>[A-Za-z0-9._-]{1,253})|\[(?P<v6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:[/?][!\"$-~]*)?"
)
_AUTHORITY = re.compile(r"[a-z]+://([^/?#\\]*)", re.IGNORECASE)

# https://www.iana.org/assignments/iana-ipv4-special-registry, and what clouds answer their machines at. Spelled out,
# because `is_global` of the standard library differs between Python's versions.
_V4_NOT_PUBLIC = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a carrier's customers
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's machines, from inside
        "169.254.0.0/16",  # link-local, metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Everything else is loopback, mapped, NAT64, private, link-local, multicast or reserved.
_V6_UNICAST = IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry
_V6_NOT_PUBLIC = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocols, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the internet could reach. False for what is none."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _V4_NOT_PUBLIC)
    # A scope names an interface of this machine.
    if ip.scope_id is not None or ip not in _V6_UNICAST:
        return False
    return not any(ip in network for network in _V6_NOT_PUBLIC)


def url_fault(url: str, *, allow_private: bool) -> str:
    """Why a service on the internet can't be called at `url`, empty where it can. `allow_private` permits http and
    addresses that are not public."""
    parts = _URL.fullmatch(url)
    if parts is None or len(url) > URL_MAX_CHARS or not 0 < int(parts["port"] or 1) <= PORT_MAX:
        return _form_fault(url)
    if allow_private:
        return ""
    if parts["scheme"] != "https":
        return "must be an https URL"
    literal = parts["v6"] or (parts["name"] if re.fullmatch(r"[0-9.]+", parts["name"]) else "")
    return "must be a public address" if literal and not is_public(literal) else ""


def _form_fault(url: str) -> str:
    if len(url) > URL_MAX_CHARS:
        return f"must have at most {URL_MAX_CHARS} characters"
    if "#" in url:
        return "must have no fragment"
    authority = _AUTHORITY.match(url)
    if authority and "@" in authority[1]:
        return "must have no user name or password"
    return "must be an absolute URL in ASCII, such as https://example.com/ended"


def host_of(url: str) -> str:
    """The host of a URL without a fault: what may be shown of it."""
    parts = _URL.fullmatch(url)
    return (parts["name"] or parts["v6"]) if parts else ""
