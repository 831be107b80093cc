"""Where a caller may have the service connect to."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.addresses import URL_MAX_CHARS, host_of, is_public, url_fault

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "223.255.255.255", "2606:4700::1111", "2a00::1"]
NOT_PUBLIC = {
    "this host": str(ipaddress.IPv4Address(0)),
    "loopback": "127.8.0.1",
    "private 10": "10.0.0.1",
    "private 172": "172.31.255.255",
    "private 192": "192.168.1.1",
    "carrier": "100.100.100.200",
    "metadata": "169.254.169.254",
    "oracle metadata": "192.0.0.192",
    "azure": "168.63.129.16",
    "documentation": "203.0.113.5",
    "benchmarks": "198.19.0.1",
    "multicast": "224.0.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "v6 unspecified": "::",
    "v6 loopback": "::1",
    "v6 link-local": "fe80::1",
    "v6 scoped": "fe80::1%eth0",
    "v6 scoped public": "2606:4700::1111%eth0",
    "v6 private": "fd00:ec2::254",
    "v6 multicast": "ff02::1",
    "v6 documentation": "2001:db8::1",
    "mapped": "::ffff:8.8.8.8",
    "mapped private": "::ffff:10.0.0.1",
    "compatible": "::10.0.0.1",
    "NAT64": "64:ff9b::a00:1",
    "local NAT64": "64:ff9b:1::a00:1",
    "6to4": "2002:a00:1::1",
    "teredo": "2001:0:a00:1::1",
    "site-local": "fec0::1",
    "no address": "localhost",
    "short": "127.1",
    "octal": "0177.0.0.1",
    "empty": "",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC.values(), ids=NOT_PUBLIC.keys())
def test_any_other_is_not(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_nothing_is_public_that_the_standard_library_knows_to_be_special(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    special = (
        address.is_private,
        address.is_loopback,
        address.is_link_local,
        address.is_multicast,
        address.is_reserved,
        address.is_unspecified,
        not address.is_global,
    )
    assert not (any(special) and is_public(str(address)))


@given(st.ip_addresses(v=4))
def test_no_v6_address_that_holds_a_v4_address_is_public(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    mapped, compatible = (0xFFFF << 32) + number, number
    nat64 = (0x64FF9B << 96) + number
    six_to_four, teredo = (0x2002 << 112) + (number << 80), (0x20010000 << 96) + number
    for held in (mapped, compatible, nat64, six_to_four, teredo):
        assert not is_public(str(ipaddress.IPv6Address(held)))


@given(st.ip_addresses(v=4))
def test_a_url_with_an_address_is_judged_like_the_address(address: ipaddress.IPv4Address) -> None:
    fault = url_fault(f"https://{address}/ended", allow_private=False)
    assert (fault == "") == is_public(str(address))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/",
        "https://hooks.example.com:8443/a/b?token=x&y=%20@:/?",
        "https://xn--e1afmkfd.example/x",
        "https://example.com?x=1",
        "https://8.8.8.8/x",
        "https://[2606:4700::1111]:443/x",
    ],
)
def test_a_public_https_url_is_taken(url: str) -> None:
    assert url_fault(url, allow_private=False) == ""


FORM = "must be an absolute URL in ASCII, such as https://example.com/ended"
FAULTS = {
    "http": ("http://example.com/", "must be an https URL"),
    "file": ("file:///etc/passwd", FORM),
    "no scheme": ("example.com/x", FORM),
    "relative": ("//example.com/x", FORM),
    "empty": ("", FORM),
    "no host": ("https:///x", FORM),
    "port 0": ("https://example.com:0/", FORM),
    "large port": ("https://example.com:65536/", FORM),
    "empty port": ("https://example.com:/", FORM),
    "space": ("https://example.com/a b", FORM),
    "line break": ("https://example.com/\r\nx: y", FORM),
    "trailing line break": ("https://example.com/\n", FORM),
    "backslash": ("https://example.com\\@evil.example/", FORM),
    "not ASCII": ("https://пример.example/", FORM),
    "capital scheme": ("HTTPS://example.com/", FORM),
    "scope": ("https://[fe80::1%25eth0]/", FORM),
    "user": ("https://user@example.com/", "must have no user name or password"),
    "password": ("https://user:secret@example.com/", "must have no user name or password"),
    "fragment": ("https://example.com/#x", "must have no fragment"),
    "private": ("https://10.0.0.1/x", "must be a public address"),
    "short loopback": ("https://127.1/x", "must be a public address"),
    "decimal loopback": ("https://2130706433/x", "must be a public address"),
    "v6 loopback": ("https://[::1]/x", "must be a public address"),
    "metadata": ("https://169.254.169.254/latest/meta-data", "must be a public address"),
    "long": ("https://example.com/" + "x" * URL_MAX_CHARS, f"must have at most {URL_MAX_CHARS} characters"),
}


@pytest.mark.parametrize(("url", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_any_other_url_is_refused_by_name_of_its_fault(url: str, fault: str) -> None:
    assert url_fault(url, allow_private=False) == fault


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "https://10.0.0.1/", "http://[::1]/"])
def test_where_private_addresses_are_allowed_so_is_http(url: str) -> None:
    assert url_fault(url, allow_private=True) == ""
    assert url_fault(f"{url}#x", allow_private=True)


@given(st.text(max_size=60), st.booleans())
def test_no_text_at_all_breaks_the_check(text: str, allow_private: bool) -> None:
    for url in (text, f"https://{text}", f"https://example.com{text}"):
        if not url_fault(url, allow_private=allow_private):
            assert url.isascii()
            assert host_of(url)


def test_the_host_is_all_that_is_shown_of_a_url() -> None:
    assert host_of("https://hooks.example.com:8443/secret?token=secret") == "hooks.example.com"
    assert host_of("https://[2606:4700::1111]/secret") == "2606:4700::1111"
