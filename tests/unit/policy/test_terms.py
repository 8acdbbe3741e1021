"""What kind of room a token makes, and who may come into it."""

import time

import pytest

from relay.errors import Refused
from relay.policy.terms import Demands, Terms, check_demands, choose_terms, is_reserved, read_demands, without_reserved
from relay.policy.tiers import Tier, TierTable

FREE, OPEN, PAID = Tier("free", "refused"), Tier("open", "allowed"), Tier("paid", "required")
TABLE = TierTable({}, FREE, {tier.name: tier for tier in (FREE, OPEN, PAID)} | {"gold": Tier("gold", "required")})
CLEAR_ROOM = Terms(OPEN, "none", "livekit_gcm")
LIVEKIT_ROOM = Terms(OPEN, "shared-passphrase", "livekit_gcm")
SFRAME_ROOM = Terms(PAID, "shared-passphrase", "sframe")
GROUP_TIER = Tier("club", "required", "group", "sframe")


def test_demands_are_read_and_nothing_else() -> None:
    attributes = (("veil.min_tier", "paid"), ("veil.e2ee_profile", "group"), ("veil.frame_format", "sframe"), ("a", "b"))
    assert read_demands(attributes) == Demands("paid", "group", "sframe")
    assert without_reserved(attributes) == (("a", "b"),)
    assert read_demands((("a", "b"), ("veil", "x"))) == Demands()
    assert read_demands(Demands("paid", "group", "sframe").attributes().items()) == Demands("paid", "group", "sframe")


@pytest.mark.parametrize(
    ("name", "value"),
    [("veil.min_tier", ""), ("veil.min_tier", "x" * 65), ("veil.e2ee_profile", ""), ("veil.e2ee_profile", "None"),
     ("veil.e2ee_profile", "none "), ("veil.frame_format", "gcm"), ("veil.frame_format", "clear"),
     ("Veil.min_tier", "paid"), ("veil.min_tier ", "paid"), ("veil.Min_Tier", "paid"), ("veil.mintier", "paid"),
     ("\uff56eil.min_tier", "paid"), ("veil.tier", "paid")],
)  # fmt: skip
def test_a_demand_that_is_not_understood_is_refused_and_not_lost(name: str, value: str) -> None:
    with pytest.raises(Refused) as refused:
        read_demands([(name, value)])
    assert refused.value.status == 400 and refused.value.sentence.endswith(".")


def test_reserved_names_are_told_by_what_people_see() -> None:
    assert all(map(is_reserved, ("veil.", "VEIL.x", "ve\u200dil.x", "veil\u2024x", "\u24e5eil.x", "v\u0301eil.x", "\nveil.x")))
    looks = ("v\u0435il.", "\u03bdeil.", "ve\u0131l.", "ve\u0456l.", "veI\u04cf.", "veiI.", "vei1.", "veil\u3002", "\u3164veil.")
    assert all(map(is_reserved, looks)) and not is_reserved("\u0415veil.")
    assert not any(map(is_reserved, ("", "veil", "veilx.", "x.veil.", "vei.l", "lk.agent.state")))


@pytest.mark.parametrize("name", ["\ufdfa" * 21_000, "\u200b" * 21_000 + "veil.x", "v\u0301" * 20_000, "\u0390" * 30_000])
def test_a_long_name_is_judged_as_quickly_as_a_short_one(name: str) -> None:
    """64 kB of a ligature for a topic, with every packet, kept the relay busy for an eighth of a second each."""
    begun = time.perf_counter()
    judged = [is_reserved(name) for _ in range(100)]
    assert time.perf_counter() - begun < 0.5
    assert judged[0] == ("veil.x" in name)


@pytest.mark.parametrize(
    ("tier", "demands", "made"),
    [(FREE, Demands(), ("none", "clear")), (OPEN, Demands(), ("none", "clear")),
     (PAID, Demands(), ("shared-passphrase", "livekit_gcm")), (GROUP_TIER, Demands(), ("group", "sframe")),
     (GROUP_TIER, Demands(None, "shared-passphrase", None), ("shared-passphrase", "sframe")),
     (OPEN, Demands(None, "shared-passphrase", None), ("shared-passphrase", "livekit_gcm")),
     (OPEN, Demands(None, "shared-passphrase", "sframe"), ("shared-passphrase", "sframe")),
     (PAID, Demands(None, "group", None), ("group", "sframe")), (PAID, Demands(None, None, "sframe"), ("shared-passphrase", "sframe")),
     (OPEN, Demands(None, "none", None), ("none", "clear"))],
)  # fmt: skip
def test_the_creator_chooses_within_the_tier(tier: Tier, demands: Demands, made: tuple[str, str]) -> None:
    terms = choose_terms(tier, demands)
    assert (terms.e2ee_profile, terms.frames) == made


@pytest.mark.parametrize(
    ("tier", "demands"),
    [(FREE, Demands(None, "shared-passphrase", None)), (FREE, Demands(None, None, "sframe")), (FREE, Demands(None, "group", None)),
     (PAID, Demands(None, "none", None)), (PAID, Demands(None, "none", "sframe")), (OPEN, Demands(None, None, "livekit_gcm")),
     (OPEN, Demands(None, "group", "livekit_gcm")), (OPEN, Demands(None, "none", "sframe"))],
)  # fmt: skip
def test_what_contradicts_the_tier_or_itself_is_refused_by_name(tier: Tier, demands: Demands) -> None:
    with pytest.raises(Refused) as refused:
        choose_terms(tier, demands)
    assert refused.value.status == 403 and f"{tier.name} tier" in refused.value.sentence


def test_one_changed_word_encrypts_everything() -> None:
    assert choose_terms(Tier("free", "required", features=frozenset({"recording"})), Demands()).is_encrypted


@pytest.mark.parametrize(
    ("terms", "demands"),
    [(CLEAR_ROOM, Demands()), (LIVEKIT_ROOM, Demands()), (SFRAME_ROOM, Demands("paid", "shared-passphrase", "sframe")),
     (CLEAR_ROOM, Demands("free")), (CLEAR_ROOM, Demands("open", "none")), (SFRAME_ROOM, Demands("gold")), (SFRAME_ROOM, Demands("free"))],
)  # fmt: skip
def test_who_demands_no_more_than_the_room_is_comes_in(terms: Terms, demands: Demands) -> None:
    check_demands(terms, demands, TABLE)


@pytest.mark.parametrize(
    ("terms", "demands"),
    [(CLEAR_ROOM, Demands("paid")), (LIVEKIT_ROOM, Demands("gold")), (CLEAR_ROOM, Demands("nowhere")), (SFRAME_ROOM, Demands("PAID")),
     (CLEAR_ROOM, Demands(None, "shared-passphrase")), (SFRAME_ROOM, Demands(None, "none")), (SFRAME_ROOM, Demands(None, "group")),
     (SFRAME_ROOM, Demands(None, None, "livekit_gcm")), (CLEAR_ROOM, Demands(None, None, "livekit_gcm"))],
)  # fmt: skip
def test_who_demands_more_or_other_does_not(terms: Terms, demands: Demands) -> None:
    with pytest.raises(Refused) as refused:
        check_demands(terms, demands, TABLE)
    assert refused.value.status == 403 and refused.value.sentence.endswith(".")


@pytest.mark.parametrize(
    ("terms", "frames", "words"),
    [(CLEAR_ROOM, "clear", None), (CLEAR_ROOM, "livekit_gcm", "turn encryption off"), (CLEAR_ROOM, "sframe", "turn encryption off"),
     (LIVEKIT_ROOM, "livekit_gcm", None), (LIVEKIT_ROOM, "clear", "turn encryption on"), (LIVEKIT_ROOM, "sframe", "format livekit_gcm"),
     (SFRAME_ROOM, "sframe", None), (SFRAME_ROOM, "clear", "turn encryption on"), (SFRAME_ROOM, "livekit_gcm", "format sframe"),
     (Terms(FREE, "none", "sframe"), "sframe", "turn encryption off")],
)  # fmt: skip
def test_tracks_of_another_kind_are_refused_in_a_sentence_that_names_the_tier(terms: Terms, frames: str, words: str | None) -> None:
    sentence = terms.refusal(frames)
    assert (sentence is None) == (words is None)
    assert sentence is None or (words in sentence and f"{terms.tier.name} tier" in sentence and sentence.endswith("."))


@pytest.mark.parametrize(("terms", "goes"), [(CLEAR_ROOM, False), (LIVEKIT_ROOM, True), (SFRAME_ROOM, True)])
def test_messages_go_where_they_are_of_the_rooms_kind(terms: Terms, goes: bool) -> None:
    assert (terms.data_refusal(is_encrypted=True) is None) == goes
    assert (terms.data_refusal(is_encrypted=False) is None) != goes
    assert f"{terms.tier.name} tier" in str(terms.data_refusal(is_encrypted=not goes))


def test_everybody_reads_the_terms() -> None:
    assert dict(CLEAR_ROOM.attributes) == {"veil.tier": "open", "veil.e2ee_profile": "none"}
    assert dict(SFRAME_ROOM.attributes) == {
        "veil.tier": "paid", "veil.e2ee_profile": "shared-passphrase", "veil.frame_format": "sframe"
    }  # fmt: skip
