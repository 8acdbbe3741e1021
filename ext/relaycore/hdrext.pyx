"""RTP header extensions, one-byte and two-byte form (RFC 8285 sections 4.2 and 4.3): one parser, one writer, the URIs.

    one-byte (0xBEDE):  | ID 4 | len-1 4 | data ...        two-byte (0x100x):  | ID 8 | len 8 | data ...

Elements are borrowed from the packet; what an element's bytes mean is its reader's business.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset
from relaycore.be cimport need, put_u16
from relaycore.errs cimport E_EXT_LEN, E_INVALID, E_NO_SPACE, E_OK
from relaycore.errs import raise_for

cdef enum:
    PROFILE_ONE_BYTE = 0xBEDE
    PROFILE_TWO_BYTE = 0x1000      # the low four bits are the application's
    HEAD_BYTES = 4
    ONE_BYTE_MAX_ID = 14           # 15 stops a parser
    ONE_BYTE_MAX_DATA = 16
    TWO_BYTE_MAX_DATA = 255

cdef const char* _uris[17]
cdef size_t _uri_bytes[17]
# Order of ExtKind. Sources: RFC 8843/9143 (mid), RFC 8852 (rid), RFC 6464, RFC 6465, RFC 5450, 3GPP TS 26.114, the AV1 RTP
# specification, draft-holmer-rmcat-transport-wide-cc-extensions-01; the rest are libwebrtc's own.
URIS = (
    "",
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    "urn:3gpp:video-orientation",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
    "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
    "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
    "urn:ietf:params:rtp-hdrext:toffset",
    "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00",
    "urn:ietf:params:rtp-hdrext:csrc-audio-level",
)
# The pointers below stay valid because this tuple lives as long as the module.
_encoded = tuple(uri.encode() for uri in URIS)
assert len(_encoded) == <int>EXT_COUNT
for _kind in range(<int>EXT_COUNT):
    _uris[<int>_kind] = <const char*><bytes>_encoded[_kind]
    _uri_bytes[<int>_kind] = <size_t>len(_encoded[_kind])


cdef inline void _keep(ExtView* out, uint8_t kind, const uint8_t* data, uint16_t data_bytes) noexcept nogil:
    # The first of several elements with one id counts.
    if kind == EXT_NONE or kind >= EXT_COUNT or (out.present >> kind) & 1:
        return
    out.present |= <uint32_t>1 << kind
    out.by_kind[kind].data = data
    out.by_kind[kind].bytes = data_bytes


cdef int _parse_one_byte(const uint8_t* body, Py_ssize_t n, const ExtMap* ids, ExtView* out) noexcept nogil:
    cdef Py_ssize_t i = 0
    cdef uint8_t identifier
    cdef uint16_t data_bytes
    while i < n:
        if body[i] == 0:
            i += 1
            continue
        identifier = body[i] >> 4
        data_bytes = <uint16_t>((body[i] & 0x0f) + 1)
        # 15 ends the whole block (section 4.2); id 0 with a length is neither padding nor an element, and libwebrtc ends there too.
        if identifier == 15 or identifier == 0:
            return E_OK
        if not need(n - i - 1, data_bytes):
            return E_EXT_LEN
        _keep(out, ids.kind_of_id[identifier], body + i + 1, data_bytes)
        i += 1 + data_bytes
    return E_OK


cdef int _parse_two_byte(const uint8_t* body, Py_ssize_t n, const ExtMap* ids, ExtView* out) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i < n:
        if body[i] == 0:
            i += 1
            continue
        if not need(n - i, 2) or not need(n - i - 2, body[i + 1]):
            return E_EXT_LEN
        _keep(out, ids.kind_of_id[body[i]], body + i + 2, body[i + 1])
        i += 2 + body[i + 1]
    return E_OK


cdef int parse_hdrext(const uint8_t* body, Py_ssize_t n, uint16_t profile, const ExtMap* ids, ExtView* out) noexcept nogil:
    """Fill `out` with the known elements of an extension block; what stands before a malformed element is kept.

    Owns: borrows body.     Errors: E_EXT_LEN when an element runs past the block.
    """
    out.present = 0
    if profile == PROFILE_ONE_BYTE:
        return _parse_one_byte(body, n, ids, out)
    if profile & 0xfff0 == PROFILE_TWO_BYTE:
        return _parse_two_byte(body, n, ids, out)
    return E_OK


cdef int write_hdrext(uint8_t* dst, Py_ssize_t cap, const ExtMap* ids, const ExtView* view) noexcept nogil:
    """Write head, elements in order of kind, and zero padding to a whole word. dst must not overlap the view's data.

    Errors: E_NO_SPACE; E_INVALID when an element is longer than 255 bytes, which neither form can say.
    """
    cdef int kind
    cdef bint is_one_byte = True
    cdef Py_ssize_t body_bytes = 0
    cdef Py_ssize_t padded, i
    cdef int count = 0
    cdef uint8_t identifier
    cdef uint16_t data_bytes
    for kind in range(1, EXT_COUNT):
        if not (view.present >> kind) & 1 or ids.id_of_kind[kind] == 0:
            continue
        data_bytes = view.by_kind[kind].bytes
        if data_bytes > TWO_BYTE_MAX_DATA:
            return E_INVALID
        if ids.id_of_kind[kind] > ONE_BYTE_MAX_ID or data_bytes == 0 or data_bytes > ONE_BYTE_MAX_DATA:
            is_one_byte = False
        body_bytes += data_bytes
        count += 1
    if count == 0:
        return 0
    body_bytes += count if is_one_byte else 2 * count
    padded = (body_bytes + 3) & ~3
    if not need(cap, HEAD_BYTES + padded):
        return E_NO_SPACE
    put_u16(dst, <uint16_t>(PROFILE_ONE_BYTE if is_one_byte else PROFILE_TWO_BYTE))
    put_u16(dst + 2, <uint16_t>(padded >> 2))
    i = HEAD_BYTES
    for kind in range(1, EXT_COUNT):
        identifier = ids.id_of_kind[kind]
        if not (view.present >> kind) & 1 or identifier == 0:
            continue
        data_bytes = view.by_kind[kind].bytes
        if is_one_byte:
            dst[i] = <uint8_t>((identifier << 4) | (data_bytes - 1))
            i += 1
        else:
            dst[i] = identifier
            dst[i + 1] = <uint8_t>data_bytes
            i += 2
        if data_bytes:
            memcpy(dst + i, view.by_kind[kind].data, data_bytes)
        i += data_bytes
    memset(dst + i, 0, <size_t>(HEAD_BYTES + padded - i))
    return <int>(HEAD_BYTES + padded)


cdef int ext_kind_of_uri(const char* uri, Py_ssize_t n) noexcept nogil:
    """Return the ExtKind of an a=extmap URI, EXT_NONE when it is none of ours."""
    cdef int kind
    for kind in range(1, EXT_COUNT):
        if <size_t>n == _uri_bytes[kind] and memcmp(uri, _uris[kind], <size_t>n) == 0:
            return kind
    return EXT_NONE


cdef void number_extensions(ExtMap* x, const uint8_t* id_of_kind) noexcept nogil:
    cdef int kind
    memset(x, 0, sizeof(ExtMap))
    for kind in range(1, EXT_COUNT):
        if id_of_kind[kind]:
            x.id_of_kind[kind] = id_of_kind[kind]
            x.kind_of_id[id_of_kind[kind]] = <uint8_t>kind


cdef int put_extension_ids(object id_by_uri, uint8_t* id_of_kind) except -1:
    cdef bytes uri
    cdef int kind
    seen = set()
    for name, number in id_by_uri.items():
        # RFC 8285 section 4.2: 0 is padding and 15 ends a one-byte block.
        if not 1 <= number <= 255 or number == 15:
            raise ValueError(f"extension id {number} is not allowed")
        if number in seen:
            raise ValueError(f"extension id {number} stands twice")
        seen.add(number)
        uri = name.encode()
        kind = ext_kind_of_uri(uri, len(uri))
        if kind != EXT_NONE:
            id_of_kind[kind] = number
    return 0


# --- Python face ----------------------------------------------------------------------------------------------------

def kind_of_uri(str uri not None):
    """Return the ExtKind number of a URI, 0 when it is none of ours. The control plane fills `id_of_kind` with it."""
    cdef bytes encoded = uri.encode("utf-8", "surrogateescape")
    return ext_kind_of_uri(<const char*>encoded, len(encoded))


cdef int _fill_map(ExtMap* ids, dict id_by_kind) except -1:
    memset(ids, 0, sizeof(ExtMap))
    for kind, identifier in id_by_kind.items():
        if not (0 < kind < <int>EXT_COUNT and 0 < identifier < 256):
            raise ValueError("kinds are 1..16, ids 1..255")
        ids.id_of_kind[<int>kind] = <uint8_t>identifier
        ids.kind_of_id[<int>identifier] = <uint8_t>kind
    return 0


def parse(bytes body not None, int profile, dict id_by_kind not None):
    """Test face: return {kind: data} of an extension block under a numbering {kind: id}; WireError on bad bytes."""
    cdef ExtMap ids
    cdef ExtView view
    _fill_map(&ids, id_by_kind)
    raise_for(parse_hdrext(<const uint8_t*>body, len(body), <uint16_t>profile, &ids, &view))
    return {
        kind: <bytes>(<const char*>view.by_kind[<int>kind].data)[:view.by_kind[<int>kind].bytes]
        for kind in range(1, <int>EXT_COUNT) if (view.present >> <int>kind) & 1
    }


def write(dict elements not None, dict id_by_kind not None, Py_ssize_t cap=2048):
    """Test face: return the extension block (head included) for {kind: data} under {kind: id}, in at most cap (<= 8,192) bytes."""
    cdef ExtMap ids
    cdef ExtView view
    cdef uint8_t[8192] buf
    cdef int written
    if not 0 <= cap <= 8192:
        raise ValueError("cap is 0..8192")
    _fill_map(&ids, id_by_kind)
    view.present = 0
    for kind, data in elements.items():
        if not (0 < kind < <int>EXT_COUNT and len(data) < 65536):
            raise ValueError("kinds are 1..16, data shorter than 65,536 bytes")
        view.present |= <uint32_t>1 << <int>kind
        view.by_kind[<int>kind].data = <const uint8_t*><bytes>data
        view.by_kind[<int>kind].bytes = <uint16_t>len(data)
    written = raise_for(write_hdrext(buf, cap, &ids, &view))
    return (<const char*>buf)[:written]
