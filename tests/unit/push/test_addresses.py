"""Which addresses are of the public internet."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushsvc.push.addresses import is_public

PUBLIC = ["8.8.8.8", "142.250.74.202", "2a00:1450:4001:82b::200a", "2606:4700::1111"]
NOT_PUBLIC = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "168.63.129.16", "192.88.99.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
    "2001:db8::1", "3fff::1", "100::1", "2001::1", "2001:2::1", "5f00::1", "4000::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_others_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "8.8.8.8/32", "8.8.8"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


def carriers(inner: IPv4Address) -> list[str]:
    """The IPv6 addresses that lead to an IPv4 address."""
    number = int(inner)
    teredo = (0x2001_0000 << 96) | (int(IPv4Address("65.54.227.120")) << 64)
    return [
        str(IPv6Address(each))
        for each in (
            0xFFFF << 32 | number,  # mapped
            0x2002 << 112 | number << 80 | 1,  # 6to4
            0x64_FF9B << 96 | number,  # NAT64
            teredo | (number ^ 0xFFFF_FFFF),  # Teredo, the client
            0x2001_0000 << 96 | number << 64 | (int(IPv4Address("8.8.8.8")) ^ 0xFFFF_FFFF),
        )
    ]


@pytest.mark.parametrize("address", [each for each in NOT_PUBLIC if "." in each])
def test_an_address_in_another_is_as_public_as_that_is(address: str) -> None:
    for carrier in [*carriers(IPv4Address(address)), f"::{address}"]:
        assert not is_public(carrier), carrier


def test_a_public_address_in_another_is_public() -> None:
    mapped, six, nat, client, server = carriers(IPv4Address("8.8.4.4"))
    assert is_public(mapped)
    assert is_public(six)
    assert is_public(nat)
    assert is_public(client)
    assert is_public(server)


CARRYING = [*map(IPv6Network, ("::ffff:0:0/96", "2002::/16", "64:ff9b::/96", "2001::/32"))]


@given(st.ip_addresses())
def test_nothing_is_public_that_python_counts_as_special(
    address: IPv4Address | IPv6Address,
) -> None:
    special = (
        address.is_private or address.is_loopback or address.is_link_local
        or address.is_multicast or address.is_reserved or address.is_unspecified
    )  # fmt: skip
    if special and not any(address in each for each in CARRYING):
        assert not is_public(str(address))


@given(st.ip_addresses(v=4))
def test_whatever_carries_an_address_is_as_public_as_that(address: IPv4Address) -> None:
    for carrier in carriers(address):
        assert is_public(carrier) == is_public(str(address)), carrier
