"""addresses.py: which hosts may be asked."""

import asyncio

import pytest

from diptych.addresses import HostList, is_public, resolve
from diptych.errors import ConfigError


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "2001:db8::1", "fec0::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1"),
        "2001:0:5ef5:79fb::f5ff:fffe",  # Teredo of 10.0.0.1
    ],
)
def test_addresses_that_are_not_public(address: str):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address: str):
    assert is_public(address)


@pytest.mark.parametrize(
    ("entry", "host", "port", "may"),
    [
        ("*.pictures.org", "cdn.pictures.org", None, True),
        ("*.pictures.org", "pictures.org", None, False),
        ("pictures.org", "cdn.pictures.org", None, False),
        ("PICTURES.org", "pictures.org", 443, True),
        ("pictures.org:8080", "pictures.org", 8080, True),
        ("pictures.org:8080", "pictures.org", None, False),
        ("*.Bücher.example:8443", "a.xn--bcher-kva.example", 8443, True),
        ("127.0.0.1:8000", "127.0.0.1", 8000, True),
    ],
)
def test_what_an_entry_of_a_list_of_hosts_holds(entry: str, host: str, port: int | None, may: bool):
    assert HostList([entry], "--allow-url").holds(host, port, "https") == may


@pytest.mark.parametrize(
    "entry", ["", "*", "http://pictures.org", "pictures.org/a", "a@b.org", "pictures.org:x", "a..b"]
)
def test_an_entry_that_is_no_host_is_refused(entry: str):
    with pytest.raises(ConfigError, match="--allow-url takes a host"):
        HostList([entry], "--allow-url")


def test_numbers_in_disguise_are_resolved_to_what_they_are():
    """What browsers and curl take for 127.0.0.1 is no public address either."""
    for host in ("2130706433", "0x7f.1", "127.1"):
        found = asyncio.run(resolve(host, 80))
        assert found == ["127.0.0.1"]
        assert not any(map(is_public, found))
