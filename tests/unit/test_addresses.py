"""Where media listens and what clients are told."""

import pytest

from relay.addresses import media_addresses
from relay.config import Config, load
from relay.errors import ConfigError

MACHINE = {
    "lo": ["127.0.0.1", "::1"],
    "eth0": ["10.0.0.5", "2001:db8::5", "fe80::1"],
    "eth1": ["10.1.0.5"],
}


def told(config: Config, machine: dict[str, list[str]] = MACHINE) -> list[tuple[str, str]]:
    return [(address.ip, address.advertised_ip) for address in media_addresses(config, machine)]


def settings(**variables: str) -> Config:
    return load(None, {f"VEIL_MEDIA_{name.upper()}": value for name, value in variables.items()})


def test_every_address_but_loopback_and_link_local() -> None:
    assert [ip for ip, _ in told(settings())] == ["10.0.0.5", "2001:db8::5", "10.1.0.5"]
    assert [ip for ip, _ in told(settings(ipv6="false"))] == ["10.0.0.5", "10.1.0.5"]


def test_development_offers_loopback_too() -> None:
    assert told(load(None, {}, dev=True))[0] == ("127.0.0.1", "127.0.0.1")


def test_interfaces_choose() -> None:
    assert [ip for ip, _ in told(settings(interfaces="eth1"))] == ["10.1.0.5"]
    assert [ip for ip, _ in told(settings(interfaces="lo", ipv6="false"))] == ["127.0.0.1"]
    with pytest.raises(ConfigError, match="'wlan0'; this machine has eth0, eth1, lo"):
        told(settings(interfaces="wlan0"))


def test_one_public_address_stands_for_one_local_address() -> None:
    assert told(settings(interfaces="eth0", advertise_ip="203.0.113.9")) == [
        ("10.0.0.5", "203.0.113.9"),
        ("2001:db8::5", "2001:db8::5"),
    ]
    with pytest.raises(ConfigError, match=r"there are 2 \(10.0.0.5, 10.1.0.5\)"):
        told(settings(advertise_ip="203.0.113.9"))
    with pytest.raises(ConfigError, match="there is none"):
        told(settings(interfaces="eth1", advertise_ip="2001:db8::9"))


def test_several_public_addresses_are_mapped() -> None:
    config = settings(ipv6="false", advertise_ips="10.0.0.5=203.0.113.5", advertise_ip="203.0.113.9")
    assert told(config) == [("10.0.0.5", "203.0.113.5"), ("10.1.0.5", "203.0.113.9")]


def test_addresses_the_machine_lacks_are_refused() -> None:
    with pytest.raises(ConfigError, match="192.0.2.77, which this machine does not have"):
        told(settings(bind_ips="192.0.2.77"))
    with pytest.raises(ConfigError, match="advertise_ips names 192.0.2.77"):
        told(settings(advertise_ips="192.0.2.77=203.0.113.9"))


def test_a_machine_without_an_address_is_told_so() -> None:
    with pytest.raises(ConfigError, match="no address but loopback"):
        told(settings(), {"lo": ["127.0.0.1"]})


def test_too_many_addresses_must_be_chosen_from() -> None:
    with pytest.raises(ConfigError, match="must choose"):
        told(settings(), {"eth0": [f"10.0.0.{n}" for n in range(1, 20)]})
