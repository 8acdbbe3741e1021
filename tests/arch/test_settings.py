"""Every setting is explained, carries its unit, is in the example, and is used by something."""

import dataclasses
import re
import typing

import pytest

from relay import config
from relay.config_read import strip
from tests.arch.rules import ROOT

TABLES = (
    config.Config,
    config.Server,
    config.Media,
    config.Limits,
    config.Rooms,
    config.Webhook,
    config.Log,
    config.ApiKey,
    config.Customer,
    config.Tier,
)
UNIT = re.compile(r"_(?:ns|us|ms|s|bps|bytes|packets|ticks|port)$")
# Numbers of things: the name is the unit.
COUNTS = {
    "participants_per_room",
    "publications_per_participant",
    "rooms_per_customer",
    "connections_per_address",
    "waiting_connections",
    "workers",
    "peer_packets_per_s",
    "peer_bits_per_s",
    "cameras_forwarded",
    "microphones_forwarded",
}


def unexplained(cls: type) -> list[str]:
    """Return the fields whose reason is missing or no sentence, and numbers without a unit in their name."""
    wrong = []
    hints = typing.get_type_hints(cls)
    for spec in dataclasses.fields(cls):
        if cls is config.Config and spec.name in ("dev", "tree"):
            continue
        why = spec.metadata.get("why", "")
        if len(why) < 25 or not why.endswith("."):
            wrong.append(f"{cls.__name__}.{spec.name}: its reason is {why!r}")
        if strip(hints[spec.name]) is int and not UNIT.search(spec.name) and spec.name not in COUNTS:
            wrong.append(f"{cls.__name__}.{spec.name}: a number without its unit")
    return wrong


@pytest.mark.parametrize("cls", TABLES)
def test_every_setting_is_explained(cls: type) -> None:
    assert unexplained(cls) == []


def test_an_unexplained_setting_is_found() -> None:
    planted = dataclasses.make_dataclass(
        "Planted", [("delay", int, dataclasses.field(default=1, metadata={"why": "So."}))]
    )
    assert len(unexplained(planted)) == 2


def unused(sources: str) -> list[str]:
    """Return the settings no source reads: a setting that does nothing is a promise that is not kept."""
    names = [spec.name for cls in TABLES[1:] for spec in dataclasses.fields(cls)]
    return [name for name in names if not re.search(rf"\.{name}\b", sources)]


def test_every_setting_is_used() -> None:
    own = {"config.py", "config_read.py"}
    sources = "\n".join(p.read_text() for p in (ROOT / "relay").rglob("*.py") if p.name not in own)
    # These three are read only by relay.config itself, which turns them into `origin`, keys and tiers.
    assert [name for name in unused(sources) if name not in ("web_origin", "tier", "customer")] == []


def test_an_unused_setting_is_found() -> None:
    assert "ping_interval_s" in unused("limits.ping_timeout_s")


def test_the_example_file_is_what_the_settings_say() -> None:
    assert (ROOT / "veil.example.toml").read_text() == config.example(), "run `make example`"
