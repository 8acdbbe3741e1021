"""Fuzz target of session descriptions: text, offers to answer, answers to our offers.

Takes any bytes and returns; an exception is a finding. `SdpError` is the right answer to a bad description.
"""

from relay.sdp import PublisherNegotiation, SdpError, SentTrack, SubscriberNegotiation, TrackOptions, parse
from relay.sdp.extensions import MAX_ID
from relay.sdp.grammar import MAX_BYTES
from tests.support.subscriber_scenario import AV1, H264, LOCAL, OPUS, RED, VP8, add, sent

OPTIONS = {mid: TrackOptions(stereo=mid == "0", dtx=mid != "1", red=True) for mid in ("0", "1", "2", "3")}


def fuzz_sdp_parse(data: bytes) -> None:
    """Whole descriptions, as offer and as answer."""
    try:
        description = parse(data)
    except SdpError as error:
        assert len(str(error)) < 300
        return
    # Lines out of order are put in order once, and after that nothing moves.
    again = parse(str(description))
    assert parse(str(again)) == again
    assert again.sections == parse(str(again)).sections
    _answer(data)
    _accept(data)


def _answer(data: bytes) -> None:
    publisher = PublisherNegotiation()
    try:
        summary = publisher.inspect(data)
        ours = {section.mid: _track(number, section.kind) for number, section in enumerate(summary.receiving)}
        answer = publisher.answer(data, LOCAL, OPTIONS, ours)
    except SdpError:
        assert publisher.role is None
        return
    assert set(answer.senders) <= set(ours)
    for mid, codecs in answer.senders.items():
        assert {codec.name for codec in codecs} <= {codec.name for codec in ours[mid].codecs}
    assert answer.sdp.count("a=sendonly\r\n") == sum(map(bool, answer.senders.values()))
    assert set(answer.sent_extensions.items()) <= set(answer.extensions.items())
    offer, written = parse(data), parse(answer.sdp)
    assert [section.media for section in written.sections] == [section.media for section in offer.sections]
    assert len(answer.sdp) < 2 * MAX_BYTES
    assert all(1 <= number <= MAX_ID for number in answer.extensions.values())
    assert len(set(answer.extensions.values())) == len(answer.extensions)
    carried = {track.mid for track in answer.tracks} | set(answer.refused)
    assert carried == {section.mid for section in summary.tracks}
    for track in answer.tracks:
        assert track.codecs and len(track.rids) <= 4 and len(track.ssrcs) == len(track.rtx_ssrcs)
    # The same offer again is no news.
    again = publisher.answer(data, LOCAL, OPTIONS, ours)
    assert (again.stopped, again.ice_restarted, again.tracks) == ((), False, answer.tracks)


def _track(number: int, kind: str) -> SentTrack:
    return sent(number, *((RED, OPUS) if kind == "audio" else (VP8,)))


def _accept(data: bytes) -> None:
    subscriber = SubscriberNegotiation()
    mids = {add(subscriber, number, codec) for number, codec in enumerate((OPUS, VP8, H264, AV1))}
    mids.add(add(subscriber, 9, RED, OPUS))
    subscriber.offer(LOCAL)
    try:
        accepted = subscriber.accept(data)
    except SdpError:
        assert subscriber.offer_outstanding
        return
    assert set(accepted.senders) == mids
    assert accepted.rejected <= mids
    assert all(not accepted.senders[mid] for mid in accepted.rejected)
    parse(subscriber.offer(LOCAL).sdp)
