"""What the control plane may ask of the data plane, in its own words, and how that becomes arguments of a worker.

Specs are frozen and say only what a worker needs; rooms, users and SDP stay outside. Limits (codecs, rids, SSRCs) are
those of the worker's fixed-size commands; what does not fit raises ValueError before anything is queued.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from relay.errors import VeilError
from relaycore.worker import error_name

Kind = Literal["audio", "video"]
FrameFormat = Literal["clear", "livekit_gcm", "sframe"]

# Codes of relaycore/errs.pxd that the plane raises itself, for ids it knows to be gone.
E_UNKNOWN_TRANSPORT = -15
E_UNKNOWN_STREAM = -16
E_STATE = -18


class PlaneError(VeilError):
    """The data plane refused a command. `code` is one of relaycore's E_ codes, `name` its name."""

    def __init__(self, what: str, code: int) -> None:
        self.code = code
        self.name = error_name(code)
        super().__init__(f"{what}: {self.name}")


@dataclass(frozen=True)
class ListenAddress:
    """One UDP socket. `advertised_ip` goes into SDP candidates (behind a 1:1 NAT it differs from `ip`)."""

    ip: str
    port: int
    advertised_ip: str


@dataclass(frozen=True)
class Codec:
    """One negotiated payload type. name: opus red vp8 vp9 h264 av1 other."""

    payload_type: int
    name: str
    clock_rate_hz: int
    rtx_payload_type: int | None


@dataclass(frozen=True)
class ReceiverSpec:
    """One m-line that an endpoint publishes on. rids: low to high; empty = one encoding without a rid."""

    kind: str
    mid: str
    codecs: tuple[Codec, ...]
    rids: tuple[str, ...]
    ssrcs: tuple[int, ...]
    rtx_ssrcs: tuple[int, ...]


@dataclass(frozen=True)
class EgressSpec:
    """One subscription: a receiver's packets on a subscriber's transport. encoding None = paused."""

    transport: int
    receiver: int
    mid: str
    ssrc: int
    rtx_ssrc: int | None
    codecs: tuple[Codec, ...]
    cname: str
    encoding: int | None


@dataclass(frozen=True)
class SrtpKeys:
    """Master keys and salts of one transport, by direction. profile: DTLS use_srtp number (RFC 5764, RFC 7714)."""

    profile: int
    receive_key: bytes = field(repr=False)
    receive_salt: bytes = field(repr=False)
    send_key: bytes = field(repr=False)
    send_salt: bytes = field(repr=False)


def codec_tuples(codecs: Iterable[Codec], kind: str) -> list[tuple[int, str, int, int | None]]:
    """Return codecs as the worker takes them; `other` is told apart by the kind of media."""
    return [
        (c.payload_type, f"other_{kind}" if c.name == "other" else c.name, c.clock_rate_hz, c.rtx_payload_type)
        for c in codecs
    ]


def receiver_arguments(transport: int, receiver: int, spec: ReceiverSpec) -> tuple[Any, ...]:
    """Return the arguments of Worker.add_receiver."""
    if spec.kind not in ("audio", "video"):
        raise ValueError(f"kind {spec.kind!r} is neither audio nor video")
    codecs = codec_tuples(spec.codecs, spec.kind)
    return transport, receiver, spec.kind == "video", spec.mid, codecs, spec.rids, spec.ssrcs, spec.rtx_ssrcs


def egress_arguments(egress: int, spec: EgressSpec, kind: str) -> tuple[Any, ...]:
    """Return the arguments of Worker.add_egress. kind: the receiver's."""
    codecs = codec_tuples(spec.codecs, kind)
    return (
        spec.transport,
        egress,
        spec.receiver,
        spec.ssrc,
        spec.rtx_ssrc,
        spec.mid,
        codecs,
        spec.cname,
        spec.encoding,
    )
