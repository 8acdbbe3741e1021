"""Session descriptions: read, answer, offer. Sans-IO and pure; no codec, no socket, no clock.

RFC 8866 for the text, RFC 9429 for offers and answers, RFC 9143 for the bundle, RFC 8853 and 8851 for simulcast.

A publisher's connection, where the client always offers:

    publisher = PublisherNegotiation(CodecPolicy())
    summary = publisher.inspect(offer_text)             # whose tracks, was ICE restarted; changes nothing
    answer = publisher.answer(offer_text, local, {mid: TrackOptions(...)})   # any number of times, each complete

Where one connection serves both directions, `summary.receiving` are the sections that tracks of ours may be sent on:

    answer = publisher.answer(offer_text, local, options, {mid: SentTrack(...)})
    answer.senders[mid]                                 # the codecs the client takes of it, () for none

A subscriber's connection, where we always offer:

    subscriber = SubscriberNegotiation()
    mid = subscriber.add(SentTrack("video", codecs, stream_id="PA_x|TR_y", track_id="TR_y", ssrc=1, rtx_ssrc=2, cname="…"))
    subscriber.remove(mid)
    if subscriber.needs_offer and not subscriber.offer_outstanding:
        offer = subscriber.offer(local)                 # InvalidState while one is outstanding
    accepted = subscriber.accept(answer_text)           # InvalidState where none is
    subscriber.abandon_offer()                          # the client lost its socket: the next offer replaces this one

`SdpError` is the client's fault and says the line; `InvalidState` is ours.
"""

from relay.sdp.answer import PublisherNegotiation
from relay.sdp.codecs import CodecPolicy
from relay.sdp.errors import InvalidState, SdpError
from relay.sdp.facts import (
    Accepted,
    Answer,
    Codec,
    Kind,
    LocalTransport,
    Offer,
    OfferSummary,
    PublishedMedia,
    ReceivingSection,
    RemoteTransport,
    Role,
    SctpParameters,
    SendingSection,
    SentTrack,
    TrackOptions,
)
from relay.sdp.grammar import SessionDescription, parse
from relay.sdp.offer import SubscriberNegotiation

__all__ = [
    "Accepted",
    "Answer",
    "Codec",
    "CodecPolicy",
    "InvalidState",
    "Kind",
    "LocalTransport",
    "Offer",
    "OfferSummary",
    "PublishedMedia",
    "PublisherNegotiation",
    "ReceivingSection",
    "RemoteTransport",
    "Role",
    "SctpParameters",
    "SdpError",
    "SendingSection",
    "SentTrack",
    "SessionDescription",
    "SubscriberNegotiation",
    "TrackOptions",
    "parse",
]
