"""The tiers of the settings: what a tier may say, which ones are shipped, and how policy takes them."""

import dataclasses
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from relay.config_read import MISSING, Tree, option
from relay.policy import tiers as policy

if TYPE_CHECKING:
    from relay.config import Config

Feature = Literal["recording", "captions", "thumbnails", "sealed_recording"]


@dataclass(frozen=True)
class Tier:
    """What rooms of a customer are allowed and obliged to."""

    e2ee: Literal["refused", "allowed", "required"] = option(
        MISSING,
        "Whether calls may, must or must not be end-to-end encrypted. It is what a token that demands a tier "
        "(veil.min_tier) goes by: it opens rooms of every tier whose word is as strict as that of the one it names.",
    )
    e2ee_profile: Literal["", "none", "shared-passphrase", "group"] = option(
        "",
        "Of rooms whose first token asks for none (veil.e2ee_profile): none is not encrypted, shared-passphrase as "
        "LiveKit apps do, group with keys of our own. Empty: shared-passphrase where e2ee is required, else none.",
    )
    frame_format: Literal["livekit_gcm", "sframe"] = option(
        "livekit_gcm",
        "Of encrypted rooms whose first token asks for none (veil.frame_format): what every LiveKit SDK speaks, or "
        "SFrame (RFC 9605). Group keys come with sframe alone.",
    )
    features: tuple[Feature, ...] = option(
        (),
        "What the operator's own programs may do with a call's media, when somebody in it asks. In an encrypted call "
        "none but sealed_recording ever starts: there is nothing to read. Names: recording, captions, thumbnails, "
        "sealed_recording.",
    )
    auto_features: tuple[Feature, ...] = option(
        (),
        "Those that start by themselves, shown from the first second. None, because nothing should begin to record "
        "people without a person who decided it.",
    )
    participants_per_room: Annotated[int, Meta(ge=0, le=1_000_000)] = option(
        0, "At most this many, and never more than limits.participants_per_room. 0: as many."
    )
    publications_per_participant: Annotated[int, Meta(ge=0, le=1_000_000)] = option(
        0, "At most this many tracks, and never more than limits.publications_per_participant. 0: as many."
    )
    peer_bits_per_s: Annotated[int, Meta(ge=0, le=100_000_000_000)] = option(
        0, "What a participant may send, and never more than limits.peer_bits_per_s. 0: as much."
    )
    cameras_forwarded: Annotated[int, Meta(ge=0, le=10_000)] = option(
        0,
        "Last-N: only so many cameras are forwarded at a time, those of who spoke last; shared screens always are. Jitsi's "
        "bridges do it for rooms of many tiles. 0: all, since most rooms are small and apps choose by themselves.",
    )
    microphones_forwarded: Annotated[int, Meta(ge=0, le=10_000)] = option(
        0,
        "Loudest-N: only so many microphones are forwarded at a time; somebody new loses the first 0.4 s of a sentence where all "
        "places are taken. 0: all, since sound costs little.",
    )


DEFAULT_TIERS: Mapping[str, Tier] = types.MappingProxyType(
    {
        "free": Tier(e2ee="refused", features=("recording", "captions", "thumbnails")),
        "paid": Tier(e2ee="required"),
    }
)


def complete_shipped_tiers(tree: Tree) -> None:
    """Fill what a file leaves out of a shipped tier from that tier: to name a limit of it must not change its promise."""
    tables = tree.values.get("tiers")
    if not isinstance(tables, Mapping):
        return
    shipped = {name: dataclasses.asdict(tier) for name, tier in DEFAULT_TIERS.items()}
    tree.values["tiers"] = {
        name: {**shipped.get(name, {}), **given} if isinstance(given, Mapping) else given
        for name, given in tables.items()
    }


def check_tiers(tiers: Mapping[str, Tier], tree: Tree) -> None:
    """Refuse tiers that make no sense.   Errors: ConfigError."""
    for name, tier in tiers.items():
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise tree.wrong(("tiers", name), "is no name: 1 to 64 of the characters A-Z a-z 0-9 _ . -.")
        rules = policy_tier(name, tier)
        if rules.contradiction(rules.default_profile, tier.frame_format):
            setting = "frame_format" if tier.e2ee_profile == "group" and tier.e2ee != "refused" else "e2ee_profile"
            why = f"cannot be {getattr(tier, setting)!r} where e2ee is {tier.e2ee!r} and e2ee_profile {tier.e2ee_profile!r}."
            raise tree.wrong(("tiers", name, setting), why)
        for feature in tier.auto_features:
            if feature not in tier.features:
                raise tree.wrong(("tiers", name, "auto_features"), f"has {feature}, which features has not.")


def policy_tier(name: str, tier: Tier) -> policy.Tier:
    """Return a tier as policy takes it."""
    return policy.Tier(
        name=name,
        e2ee=tier.e2ee,
        e2ee_profile=tier.e2ee_profile,
        frame_format=tier.frame_format,
        features=frozenset(tier.features),
        auto_features=frozenset(tier.auto_features),
        limits=policy.TierLimits(
            tier.participants_per_room,
            tier.publications_per_participant,
            tier.peer_bits_per_s,
            tier.cameras_forwarded,
            tier.microphones_forwarded,
        ),
    )


def tier_table(config: "Config") -> policy.TierTable:
    """Return the rules of every customer that the settings or a key name."""
    by_name = {name: policy_tier(name, tier) for name, tier in config.tiers.items()}
    names = {customer.name for customer in config.customers} | {key.customer for key in config.keys}
    by_customer = {name: by_name[config.customer(name).tier] for name in names}
    return policy.TierTable(by_customer, by_name[policy.DEFAULT_TIER], by_name)
