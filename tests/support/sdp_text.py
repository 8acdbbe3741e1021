"""Small client offers for tests of negotiation, written line by line."""

FINGERPRINT = "sha-256 " + ":".join(["0A"] * 32)
RID_URI = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
MID_URI = "urn:ietf:params:rtp-hdrext:sdes:mid"
TRANSPORT_CC_URI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
ABS_SEND_TIME_URI = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"

OPUS = ("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10;useinbandfec=1", "a=rtcp-fb:111 transport-cc")
RED = ("a=rtpmap:63 red/48000/2", "a=fmtp:63 111/111")
VP8 = (
    "a=rtpmap:96 VP8/90000",
    "a=rtcp-fb:96 goog-remb",
    "a=rtcp-fb:96 transport-cc",
    "a=rtcp-fb:96 ccm fir",
    "a=rtcp-fb:96 nack",
    "a=rtcp-fb:96 nack pli",
)
RTX = ("a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96")


def section(media: str, mid: str, formats: str, *lines: str, port: int = 9, direction: str = "sendonly") -> list[str]:
    """One audio or video section with its transport lines."""
    return [
        f"m={media} {port} UDP/TLS/RTP/SAVPF {formats}",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:user",
        "a=ice-pwd:passwordpasswordpassword",
        f"a=fingerprint:{FINGERPRINT}",
        "a=setup:actpass",
        f"a=mid:{mid}",
        f"a={direction}",
        "a=rtcp-mux",
        *lines,
    ]


def audio(mid: str, *lines: str, **options) -> list[str]:
    return section("audio", mid, "111", *OPUS, *lines, **options)


def video(mid: str, *lines: str, **options) -> list[str]:
    return section("video", mid, "96 97", *VP8, *RTX, *lines, **options)


def data(mid: str, *, port: int = 9) -> list[str]:
    return [
        f"m=application {port} UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:user",
        "a=ice-pwd:passwordpasswordpassword",
        f"a=fingerprint:{FINGERPRINT}",
        "a=setup:actpass",
        f"a=mid:{mid}",
        "a=sctp-port:5000",
        "a=max-message-size:262144",
    ]


def offer(*sections: list[str], group: str | None = None, session: tuple[str, ...] = ()) -> str:
    """A whole offer. `group` is the value of a=group, by default BUNDLE over every mid, "" for none."""
    mids = [line.removeprefix("a=mid:") for lines in sections for line in lines if line.startswith("a=mid:")]
    group = " ".join(["BUNDLE", *mids]) if group is None else group
    head = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", *([f"a=group:{group}"] if group else []), *session]
    return "".join(line + "\r\n" for line in [*head, *(line for lines in sections for line in lines)])


def changed(text: str, old: str, new: str) -> str:
    """The text with one line or part replaced; the part has to be there."""
    assert old in text
    return text.replace(old, new)
