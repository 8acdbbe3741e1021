"""Which local addresses carry media, and which address clients are told for each.

A relay cannot offer a wildcard address as an ICE candidate (RFC 8839 §5.1), so the machine's addresses are listed
by name. Loopback is offered only with `--dev`; link-local never, since a browser cannot know the scope.
"""

import ipaddress
from dataclasses import dataclass

import ifaddr

from relay.config import Config

# Each address costs every call a candidate and a check; a machine with more has to choose.
MAX_ADDRESSES = 16


@dataclass(frozen=True)
class MediaAddress:
    """One media socket's address and what clients are told it is."""

    ip: str
    advertised_ip: str


def machine_addresses() -> dict[str, list[str]]:
    """Return the addresses of each network interface, in the order the system lists them."""
    found: dict[str, list[str]] = {}
    for adapter in ifaddr.get_adapters():
        addresses = found.setdefault(adapter.name, [])
        # ifaddr gives IPv6 as (address, flow, scope).
        addresses += [ip.ip if isinstance(ip.ip, str) else ip.ip[0] for ip in adapter.ips]
    return found


def media_addresses(config: Config, machine: dict[str, list[str]] | None = None) -> tuple[MediaAddress, ...]:
    """Return where to listen for media.   Errors: ConfigError when nothing fits or the choice is ambiguous."""
    media = config.media
    machine = machine_addresses() if machine is None else machine
    chosen = list(media.bind_ips) or _usable(config, machine)
    if not chosen:
        raise config.wrong("media.bind_ips", "is needed: this machine has no address but loopback (or see media.ipv6).")
    if len(chosen) > MAX_ADDRESSES:
        raise config.wrong(
            "media.interfaces", f"must choose: this machine has {len(chosen)} addresses, more than {MAX_ADDRESSES}."
        )
    known = {ip for addresses in machine.values() for ip in addresses}
    for local in (*media.bind_ips, *media.advertise_ips):
        if local not in known and not ipaddress.ip_address(local).is_loopback:
            setting = "bind_ips" if local in media.bind_ips else "advertise_ips"
            raise config.wrong(
                f"media.{setting}",
                f"names {local}, which this machine does not have; it has {', '.join(sorted(known))}.",
            )
    public = _public_addresses(config, chosen)
    return tuple(MediaAddress(ip, public.get(ip, ip)) for ip in chosen)


def _usable(config: Config, machine: dict[str, list[str]]) -> list[str]:
    media = config.media
    for name in media.interfaces:
        if name not in machine:
            raise config.wrong("media.interfaces", f"names {name!r}; this machine has {', '.join(sorted(machine))}.")
    usable: list[str] = []
    for name, addresses in machine.items():
        for text in addresses:
            ip = ipaddress.ip_address(text)
            if media.interfaces and name not in media.interfaces:
                continue
            if ip.is_link_local or ip.is_multicast or (ip.version == 6 and not media.ipv6):
                continue
            # An interface that is named is meant, loopback too. A browser on this machine may see nothing else.
            is_wanted_loopback = name in media.interfaces or (config.dev and ip.version == 4)
            if not ip.is_loopback or is_wanted_loopback:
                usable.append(text)
    return list(dict.fromkeys(usable))


def _public_addresses(config: Config, chosen: list[str]) -> dict[str, str]:
    """Return local to public for every chosen address that is translated."""
    media = config.media
    public = dict(media.advertise_ips)
    if not media.advertise_ip:
        return public
    version = ipaddress.ip_address(media.advertise_ip).version
    open_ones = [
        ip
        for ip in chosen
        if ip not in public
        and ipaddress.ip_address(ip).version == version
        and not (config.dev and ipaddress.ip_address(ip).is_loopback)
    ]
    if len(open_ones) != 1:
        found = f"are {len(open_ones)} ({', '.join(open_ones)})" if open_ones else "is none"
        why = (
            f"stands for one local address, and there {found}: choose with media.interfaces or media.bind_ips, or say "
            "which is which in media.advertise_ips."
        )
        raise config.wrong("media.advertise_ip", why)
    return {**public, open_ones[0]: media.advertise_ip}
