"""`CommandPort`: the Python edge of one mailbox. Validates, copies into fixed-size commands, submits; takes events out.

Every submitting method returns the command's number; the worker answers each number with one ACK event (code >= 0 or one of
errs.E_*). Wrong arguments raise ValueError before anything is queued, `MailboxFull` says that `free_places` is 0. One
thread at a time may call a port. The tuples of `take_events`, by kind:

  ACK (kind, number, code) · DTLS (kind, transport, datagram) · ICE_SELECTED (kind, transport, (ip, port))
  ICE_DEAD, ICE_CHECK (kind, transport) · STREAM_BOUND (kind, receiver, encoding, ssrc)
  ENCODING_ACTIVE, ENCODING_SILENT (kind, receiver, encoding) · EGRESS_SWITCHED (kind, egress, encoding) · STOPPED (kind,)
  RECEIVER_STOPPED (kind, receiver, reason of STOP_REASONS) · UNDECLARED_ENCRYPTION (kind, receiver)
  SPEAKING (kind, receiver, mean level in -dBov) · LAYERS (kind, receiver, encoding, spatial layers, temporal layers)
  ESTIMATE (kind, transport, bit/s, lost of 1,000, round trip in ms)
"""
from enum import IntEnum

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from relaycore.capture cimport (
    CAPTURE_BYTES, CAPTURE_RECORDS, CAPTURE_SECONDS, CaptureRecord, capture_ring_free, capture_ring_new, capture_take,
)
from relaycore.engine cimport Snapshot
from relaycore.errs cimport err_name
from relaycore.hdrext cimport put_extension_ids
from relaycore.mailbox cimport (
    CMD_CACHE_DROP, CMD_DATAGRAM, CMD_EGRESS_ADD, CMD_EGRESS_REMOVE, CMD_EGRESS_SELECT, CMD_KEYFRAME, CMD_NOP, CMD_RECEIVER_ADD,
    CMD_RECEIVER_FORMAT, CMD_RECEIVER_KEYS,
    CMD_RECEIVER_EXPORT, CMD_RECEIVER_MIRROR, CMD_RECEIVER_REMOVE, CMD_RECEIVER_UNEXPORT, CMD_SNAPSHOT, CMD_TCP, CMD_TRANSPORT_ADD, CMD_TRANSPORT_CAPTURE, CMD_TRANSPORT_EXTENSIONS, CMD_TRANSPORT_ICE, CMD_TRANSPORT_PACING,
    CMD_TRANSPORT_REMOVE, CMD_TRANSPORT_SRTP, CMD_TRANSPORT_WANTED, COMMAND_RING, EV_ACK, EV_DTLS, EV_EGRESS_SWITCHED, EV_ENCODING_ACTIVE,
    EV_ENCODING_SILENT, EV_ESTIMATE, EV_ICE_CHECK, EV_ICE_DEAD, EV_ICE_SELECTED, EV_LAYERS, EV_RECEIVER_STOPPED, EV_SPEAKING, EV_STOPPED, EV_STREAM_BOUND,
    EV_UNDECLARED_ENCRYPTION, MAX_CNAME, MAX_CODECS,
    MAX_RIDS, MAX_SSRCS, CodecEntry, Command, Event, IceCommand, Mailbox, mailbox_event_count,
    mailbox_event_fd, mailbox_queue, mailbox_reset_event_fd, mailbox_ring_command_fd, mailbox_ring_event_fd,
    mailbox_submit, mailbox_take_event,
)
from relaycore.markprobe cimport FRAMES_CLEAR, FRAMES_LIVEKIT, FRAMES_SFRAME, STOP_PLAINTEXT, STOP_UNMARKED
from relaycore.selection cimport LAYERS_ALL
from relaycore.slab cimport SLOT_LARGE_BYTES
from relaycore.snapshot cimport counter_values, snapshot_arrays, snapshot_release, snapshot_reserve, stage_values
from relaycore.srtp cimport srtp_key_bytes, srtp_salt_bytes
from relaycore.stun cimport SockAddr
from relaycore.sockaddr cimport format_address, parse_address
from relaycore.views cimport (
    CODEC_AV1, CODEC_H264, CODEC_OPUS, CODEC_OTHER_AUDIO, CODEC_OTHER_VIDEO, CODEC_RED, CODEC_VP8, CODEC_VP9,
)

cdef extern from "<string.h>" nogil:
    void explicit_bzero(void* p, size_t bytes) noexcept

# One place of the ring is kept for CMD_STOP, so that a full ring can always be stopped.
cdef enum:
    MAX_UNANSWERED = COMMAND_RING - 1
    MAX_BYTES_ID = 16              # mid and rid

CODECS = {
    "opus": CODEC_OPUS, "red": CODEC_RED, "vp8": CODEC_VP8, "vp9": CODEC_VP9, "h264": CODEC_H264, "av1": CODEC_AV1,
    "other_audio": CODEC_OTHER_AUDIO, "other_video": CODEC_OTHER_VIDEO,
}
FRAME_FORMATS = {"clear": FRAMES_CLEAR, "livekit_gcm": FRAMES_LIVEKIT, "sframe": FRAMES_SFRAME}
STOP_REASONS = {STOP_UNMARKED: "unmarked", STOP_PLAINTEXT: "plaintext"}
CODEC_LIMIT = MAX_CODECS
RID_LIMIT = MAX_RIDS
SSRC_LIMIT = MAX_SSRCS
CAPTURE_LIMITS = CAPTURE_SECONDS, CAPTURE_RECORDS
CAPTURE_KEPT_BYTES = CAPTURE_BYTES


class EventKind(IntEnum):
    """First item of an event's tuple."""

    ACK = EV_ACK
    DTLS = EV_DTLS
    ICE_SELECTED = EV_ICE_SELECTED
    ICE_DEAD = EV_ICE_DEAD
    STREAM_BOUND = EV_STREAM_BOUND
    ENCODING_ACTIVE = EV_ENCODING_ACTIVE
    ENCODING_SILENT = EV_ENCODING_SILENT
    EGRESS_SWITCHED = EV_EGRESS_SWITCHED
    STOPPED = EV_STOPPED
    ICE_CHECK = EV_ICE_CHECK
    RECEIVER_STOPPED = EV_RECEIVER_STOPPED
    UNDECLARED_ENCRYPTION = EV_UNDECLARED_ENCRYPTION
    SPEAKING = EV_SPEAKING
    ESTIMATE = EV_ESTIMATE
    LAYERS = EV_LAYERS


class MailboxFull(Exception):
    """Nothing was queued: take events, then try again."""


def error_name(int code):
    """Return the name of an errs code, as in errs.pxd."""
    return err_name(code).decode()


# --- arguments into commands ----------------------------------------------------------------------------------------

cdef int _put_text(str what, object text, uint8_t* out, uint8_t* out_bytes, Py_ssize_t limit, Py_ssize_t least) except -1:
    cdef bytes data = text.encode() if isinstance(text, str) else bytes(text)
    if not least <= len(data) <= limit:
        raise ValueError(f"{what} has {len(data)} bytes, not {least} to {limit}")
    memcpy(out, <const char*>data, <size_t>len(data))
    out_bytes[0] = <uint8_t>len(data)
    return 0


cdef int _put_id(uint32_t* out, str what, object number) except -1:
    if not isinstance(number, int) or not 0 < number <= 0xFFFFFFFF:
        raise ValueError(f"{what} {number!r} is no number from 1 to 2^32 - 1")
    out[0] = number
    return 0


cdef int _put_key(str what, object key, uint8_t* out, Py_ssize_t wanted) except -1:
    cdef bytes data = bytes(key)
    if len(data) != wanted:
        raise ValueError(f"{what} has {len(data)} bytes, not {wanted}")
    memcpy(out, <const char*>data, <size_t>wanted)
    return 0


cdef int _put_codecs(object codecs, CodecEntry* out, uint8_t* count) except -1:
    """Fill the table from (payload type, codec, clock rate in Hz, RTX payload type or None) tuples."""
    cdef list entries = list(codecs)
    cdef Py_ssize_t i
    cdef set seen = set()
    if not 1 <= len(entries) <= MAX_CODECS:
        raise ValueError(f"{len(entries)} codecs, not 1 to {MAX_CODECS}")
    for i in range(len(entries)):
        payload_type, codec, clock_rate_hz, rtx = entries[i]
        if codec not in CODECS:
            raise ValueError(f"codec {codec!r} is none of {', '.join(CODECS)}")
        for number in (payload_type,) if rtx is None else (payload_type, rtx):
            # 64..95 with the marker bit would look like RTCP (RFC 5761 section 4).
            if not 0 <= number <= 127 or 64 <= number <= 95:
                raise ValueError(f"payload type {number} is not allowed")
            if number in seen:
                raise ValueError(f"payload type {number} stands twice")
            seen.add(number)
        if rtx == 0:
            raise ValueError("RTX payload type 0 is reserved")
        if not 0 < clock_rate_hz <= 1_000_000:
            raise ValueError(f"clock rate {clock_rate_hz} Hz is out of range")
        out[i].payload_type = payload_type
        out[i].codec = CODECS[codec]
        out[i].rtx_payload_type = rtx or 0
        out[i].clock_rate_hz = clock_rate_hz
    count[0] = <uint8_t>len(entries)
    return 0


cdef int _put_encoding(int32_t* out, object encoding) except -1:
    if encoding is None:
        out[0] = -1
    elif 0 <= encoding < MAX_RIDS:
        out[0] = encoding
    else:
        raise ValueError(f"encoding {encoding} is not 0 to {MAX_RIDS - 1}")
    return 0


cdef class CommandPort:
    """Base of what owns a mailbox: a `Worker` with its thread, or a `SansIoEngine` on virtual time."""

    def __cinit__(self):
        memset(&self._snapshot, 0, sizeof(Snapshot))

    def __dealloc__(self):
        snapshot_release(&self._snapshot)
        capture_ring_free(self._captured)

    @property
    def event_fd(self):
        """Readable when events wait; taking resets it."""
        self._need_mailbox()
        return mailbox_event_fd(self._mailbox)

    def hold_bell(self, bint held=True):
        """From now on commands wait until `ring`: whoever gives many in a turn wakes the worker once, not for each."""
        self._holds_bell = held

    def ring(self):
        """Wake the worker for the commands submitted while the bell was held."""
        self._need_mailbox()
        mailbox_ring_command_fd(self._mailbox)

    @property
    def free_places(self):
        """How many commands may be submitted now."""
        return MAX_UNANSWERED - self._unanswered if self._mailbox != NULL and self._unanswered < MAX_UNANSWERED else 0

    cdef int _need_mailbox(self) except -1:
        if self._mailbox == NULL:
            raise RuntimeError("it does not run")
        return 0

    # --- commands ---------------------------------------------------------------------------------------------------

    cdef int _begin(self, Command* c, uint32_t op, object transport=None) except -1:
        self._need_mailbox()
        memset(c, 0, sizeof(Command))
        c.op = op
        if transport is not None:
            _put_id(&c.transport, "transport", transport)
        return 0

    cdef object _submit(self, Command* c):
        # The limit also bounds unread acknowledgements: the event ring keeps places for all of them.
        if self._unanswered >= MAX_UNANSWERED:
            free(c.payload)
            raise MailboxFull(f"{self._unanswered} commands are unanswered")
        return self._submit_unbounded(c)

    cdef object _submit_unbounded(self, Command* c):
        cdef int code
        # 0 is the number of commands that nobody waits for.
        self._last_number += 1
        if self._last_number == 0:
            self._last_number = 1
        c.number = self._last_number
        code = mailbox_queue(self._mailbox, c) if self._holds_bell else mailbox_submit(self._mailbox, c)
        # Keys and passwords were copied into the ring; this copy is on the stack.
        explicit_bzero(&c.body, sizeof(c.body))
        if code < 0:
            free(c.payload)
            raise MailboxFull("the command ring is full")
        self._unanswered += 1
        return c.number

    def ping(self):
        """Do nothing but answer."""
        cdef Command c
        self._begin(&c, CMD_NOP)
        return self._submit(&c)

    cdef object _ice(self, uint32_t op, object transport, object ufrag, object password, object bits_per_s=0):
        cdef Command c
        self._begin(&c, op, transport)
        # Lengths: RFC 8839 section 5.4 (4 to 256, 22 to 256 characters), bounded by the command's fields.
        _put_text("ufrag", ufrag, c.body.ice.ufrag, &c.body.ice.ufrag_bytes, sizeof(c.body.ice.ufrag), 4)
        _put_text("password", password, c.body.ice.password, &c.body.ice.password_bytes, sizeof(c.body.ice.password), 22)
        if not 0 <= bits_per_s < 1 << 62:
            raise ValueError(f"bits_per_s is a number from 0 to 2^62, not {bits_per_s}")
        c.body.ice.bits_per_s = bits_per_s
        return self._submit(&c)

    def add_transport(self, transport, ufrag, password, bits_per_s=0):
        """`bits_per_s` is what the transport may send, in place of the worker's own limit; 0: that."""
        return self._ice(CMD_TRANSPORT_ADD, transport, ufrag, password, bits_per_s)

    def set_ice(self, transport, ufrag, password):
        return self._ice(CMD_TRANSPORT_ICE, transport, ufrag, password)

    def set_srtp(self, transport, int profile, receive_key, receive_salt, send_key, send_salt):
        cdef Command c
        cdef int key_bytes = srtp_key_bytes(profile)
        cdef int salt_bytes = srtp_salt_bytes(profile)
        self._begin(&c, CMD_TRANSPORT_SRTP, transport)
        if key_bytes < 0 or salt_bytes < 0:
            raise ValueError(f"SRTP profile {profile:#06x} is not supported")
        c.body.srtp.profile = <uint16_t>profile
        _put_key("receive_key", receive_key, c.body.srtp.receive_key, key_bytes)
        _put_key("receive_salt", receive_salt, c.body.srtp.receive_salt, salt_bytes)
        _put_key("send_key", send_key, c.body.srtp.send_key, key_bytes)
        _put_key("send_salt", send_salt, c.body.srtp.send_salt, salt_bytes)
        return self._submit(&c)

    def set_extensions(self, transport, id_by_uri, sent_id_by_uri=None):
        """Set the header extensions of a transport; `sent_id_by_uri` those of what it is sent, where they are others.

        URIs the data plane does not know are left out.
        """
        cdef Command c
        self._begin(&c, CMD_TRANSPORT_EXTENSIONS, transport)
        put_extension_ids(id_by_uri, c.body.extensions.id_of_kind)
        put_extension_ids(id_by_uri if sent_id_by_uri is None else sent_id_by_uri, c.body.extensions.sent_id_of_kind)
        return self._submit(&c)

    def send_dtls(self, transport, bytes datagram):
        cdef Command c
        self._begin(&c, CMD_DATAGRAM, transport)
        if not 0 < len(datagram) <= SLOT_LARGE_BYTES:
            raise ValueError(f"datagram of {len(datagram)} bytes")
        c.payload = <uint8_t*>malloc(<size_t>len(datagram))
        if c.payload == NULL:
            raise MemoryError("datagram")
        memcpy(c.payload, <const char*>datagram, <size_t>len(datagram))
        c.payload_bytes = <uint32_t>len(datagram)
        return self._submit(&c)

    def set_pacing(self, transport, uint64_t rate_bps):
        """Tell what the path to a subscriber carries (bit/s); 0 = unknown."""
        cdef Command c
        self._begin(&c, CMD_TRANSPORT_PACING, transport)
        c.body.pacing.rate_bps = rate_bps
        return self._submit(&c)

    def set_wanted_rate(self, transport, uint64_t rate_bps):
        """Tell what would be sent to a subscriber if the path allowed (bit/s): probes go no further. 0 = nothing more."""
        cdef Command c
        self._begin(&c, CMD_TRANSPORT_WANTED, transport)
        c.body.pacing.rate_bps = rate_bps
        return self._submit(&c)

    def add_tcp(self, int fd, str ip, int port, bytes first):
        """Have the worker serve a TCP connection, of which `first` was read already. It makes a descriptor of its own, so the
        caller's stays the caller's."""
        cdef Command c
        self._begin(&c, CMD_TCP)
        parse_address(ip, port, &c.body.tcp.remote)
        c.body.tcp.fd = fd
        c.payload = <uint8_t*>malloc(<size_t>max(1, len(first)))
        if c.payload == NULL:
            raise MemoryError("tcp")
        memcpy(c.payload, <const char*>first, <size_t>len(first))
        c.payload_bytes = <uint32_t>len(first)
        return self._submit(&c)

    def remove_transport(self, transport):
        cdef Command c
        self._begin(&c, CMD_TRANSPORT_REMOVE, transport)
        return self._submit(&c)

    def add_receiver(self, transport, receiver, is_video, mid, codecs, rids=(), ssrcs=(), rtx_ssrcs=()):
        """Add one published m-line. codecs: (payload type, name of CODECS, clock rate in Hz, RTX payload type or None)."""
        cdef Command c
        cdef Py_ssize_t i
        self._begin(&c, CMD_RECEIVER_ADD, transport)
        _put_id(&c.body.receiver.receiver, "receiver", receiver)
        c.body.receiver.is_video = 1 if is_video else 0
        _put_text("mid", mid, c.body.receiver.mid, &c.body.receiver.mid_bytes, MAX_BYTES_ID, 0)
        _put_codecs(codecs, c.body.receiver.codecs, &c.body.receiver.codec_count)
        rids, ssrcs, rtx_ssrcs = list(rids), list(ssrcs), list(rtx_ssrcs)
        if len(rids) > MAX_RIDS or len(set(rids)) != len(rids):
            raise ValueError(f"rids {rids} are not up to {MAX_RIDS} different ones")
        for i in range(len(rids)):
            _put_text("rid", rids[i], c.body.receiver.rids[i], &c.body.receiver.rid_bytes[i], MAX_BYTES_ID, 1)
        c.body.receiver.rid_count = <uint8_t>len(rids)
        if len(ssrcs) > MAX_SSRCS or len(rtx_ssrcs) > len(ssrcs):
            raise ValueError(f"{len(ssrcs)} SSRCs and {len(rtx_ssrcs)} RTX SSRCs; at most {MAX_SSRCS}, one RTX each")
        for i in range(len(ssrcs)):
            _put_id(&c.body.receiver.ssrcs[i], "SSRC", ssrcs[i])
        for i in range(len(rtx_ssrcs)):
            if rtx_ssrcs[i]:
                _put_id(&c.body.receiver.rtx_ssrcs[i], "RTX SSRC", rtx_ssrcs[i])
        c.body.receiver.ssrc_count = <uint8_t>len(ssrcs)
        return self._submit(&c)

    def set_frame_format(self, receiver, frame_format):
        """Tell once how a receiver's frames are encrypted, before its first egress: a name of FRAME_FORMATS."""
        cdef Command c
        self._begin(&c, CMD_RECEIVER_FORMAT)
        _put_id(&c.body.format.receiver, "receiver", receiver)
        if frame_format not in FRAME_FORMATS:
            raise ValueError(f"frame format {frame_format!r} is none of {', '.join(FRAME_FORMATS)}")
        c.body.format.format = FRAME_FORMATS[frame_format]
        return self._submit(&c)

    def announce_keys(self, receiver, first_kid, last_kid):
        """Add SFrame key ids that frames of a receiver may carry. Until the first call its packets are dropped."""
        cdef Command c
        self._begin(&c, CMD_RECEIVER_KEYS)
        _put_id(&c.body.keys.receiver, "receiver", receiver)
        if not 0 <= first_kid <= last_kid < 1 << 64:
            raise ValueError(f"key ids {first_kid} to {last_kid}")
        c.body.keys.first_kid = first_kid
        c.body.keys.last_kid = last_kid
        return self._submit(&c)

    def add_mirror(self, receiver, home, is_video, encodings):
        """Make a receiver of worker `home` known here, so that it can be subscribed to. remove_receiver removes it."""
        cdef Command c
        self._begin(&c, CMD_RECEIVER_MIRROR)
        _put_id(&c.body.mirror.receiver, "receiver", receiver)
        if not 1 <= encodings <= MAX_RIDS:
            raise ValueError(f"{encodings} encodings, not 1 to {MAX_RIDS}")
        c.body.mirror.home = home
        c.body.mirror.is_video = 1 if is_video else 0
        c.body.mirror.encoding_count = encodings
        return self._submit(&c)

    cdef object _export_command(self, uint32_t op, object receiver, object worker):
        cdef Command c
        self._begin(&c, op)
        _put_id(&c.body.export.receiver, "receiver", receiver)
        c.body.export.worker = worker
        return self._submit(&c)

    def add_export(self, receiver, worker):
        """Send a receiver's packets to the mirror on another worker, as that demands them."""
        return self._export_command(CMD_RECEIVER_EXPORT, receiver, worker)

    def remove_export(self, receiver, worker):
        return self._export_command(CMD_RECEIVER_UNEXPORT, receiver, worker)

    def remove_receiver(self, receiver):
        cdef Command c
        self._begin(&c, CMD_RECEIVER_REMOVE)
        _put_id(&c.body.select.receiver, "receiver", receiver)
        return self._submit(&c)

    def add_egress(self, transport, egress, receiver, ssrc, rtx_ssrc, mid, codecs, cname, encoding):
        """Add one subscription. rtx_ssrc None = no RTX, encoding None = paused."""
        cdef Command c
        self._begin(&c, CMD_EGRESS_ADD, transport)
        _put_id(&c.body.egress.egress, "egress", egress)
        _put_id(&c.body.egress.receiver, "receiver", receiver)
        _put_id(&c.body.egress.ssrc, "SSRC", ssrc)
        if rtx_ssrc is not None:
            _put_id(&c.body.egress.rtx_ssrc, "RTX SSRC", rtx_ssrc)
        if rtx_ssrc == ssrc:
            raise ValueError("RTX needs an SSRC of its own")
        _put_text("mid", mid, c.body.egress.mid, &c.body.egress.mid_bytes, MAX_BYTES_ID, 0)
        _put_codecs(codecs, c.body.egress.codecs, &c.body.egress.codec_count)
        _put_text("cname", cname, c.body.egress.cname, &c.body.egress.cname_bytes, MAX_CNAME, 1)
        _put_encoding(&c.body.egress.encoding, encoding)
        return self._submit(&c)

    cdef object _egress_command(self, uint32_t op, object egress, object encoding):
        cdef Command c
        self._begin(&c, op)
        _put_id(&c.body.select.egress, "egress", egress)
        _put_encoding(&c.body.select.encoding, encoding)
        return self._submit(&c)

    def select_layers(self, egress, encoding, spatial=LAYERS_ALL, temporal=LAYERS_ALL):
        """Forward this encoding (None = pause) up to these layer ids; 7 = all there are."""
        cdef Command c
        self._begin(&c, CMD_EGRESS_SELECT)
        _put_id(&c.body.select.egress, "egress", egress)
        _put_encoding(&c.body.select.encoding, encoding)
        if not 0 <= spatial <= LAYERS_ALL or not 0 <= temporal <= LAYERS_ALL:
            raise ValueError(f"layers {spatial} and {temporal} are not 0 to {LAYERS_ALL}")
        c.body.select.spatial = spatial
        c.body.select.temporal = temporal
        return self._submit(&c)

    def select_encoding(self, egress, encoding):
        """Forward all layers of this encoding."""
        return self.select_layers(egress, encoding)

    def remove_egress(self, egress):
        return self._egress_command(CMD_EGRESS_REMOVE, egress, None)

    def drop_keyframe_cache(self, receiver):
        """From now on nobody begins at what came of a receiver before its next keyframe."""
        cdef Command c
        self._begin(&c, CMD_CACHE_DROP)
        _put_id(&c.body.select.receiver, "receiver", receiver)
        return self._submit(&c)

    def request_keyframe(self, receiver, encoding):
        cdef Command c
        self._begin(&c, CMD_KEYFRAME)
        _put_id(&c.body.select.receiver, "receiver", receiver)
        if encoding is None:
            raise ValueError("a keyframe is asked for one encoding")
        _put_encoding(&c.body.select.encoding, encoding)
        return self._submit(&c)

    # --- snapshot -----------------------------------------------------------------------------------------------------

    def request_snapshot(self, uint32_t transports=64, uint32_t streams=256, uint32_t egresses=1024, uint32_t layers=1024):
        """Ask for a snapshot of at most so many entries; RuntimeError while another one is on its way."""
        cdef Command c
        self._begin(&c, CMD_SNAPSHOT)
        if self._snapshot_number:
            raise RuntimeError("a snapshot is on its way")
        if max(transports, streams, egresses, layers) > 1 << 24:
            raise ValueError("snapshot is too large")
        if self._unanswered < MAX_UNANSWERED and snapshot_reserve(&self._snapshot, transports, streams, egresses, layers) < 0:
            raise MemoryError("snapshot")
        self._snapshot_number = self._submit(&c)
        return self._snapshot_number

    def snapshot(self):
        """Return the last answered snapshot as a dict of copies: transports, streams, egresses, layers (structured arrays), found
        (how many of each there were; above the array's length: ask again for more), counters, errors (by E_ name),
        stages ({name: (ns, packets)} of the turns that were sampled), slots_used, transports_alive, now_ns.
        """
        cdef Snapshot* s = &self._snapshot
        if self._snapshot_number or not self._has_snapshot:
            raise RuntimeError("no answered snapshot")
        transports, streams, egresses, layers = snapshot_arrays(s)
        counters, errors = counter_values(&s.counters)
        return {
            "transports": transports, "streams": streams, "egresses": egresses, "layers": layers,
            "found": (s.transport_count, s.stream_count, s.egress_count, s.layer_count),
            "counters": counters, "errors": errors, "stages": stage_values(&s.counters),
            "slots_used": s.slots_used, "transports_alive": s.transports_alive, "now_ns": s.now_ns,
        }

    # --- headers of a transport ---------------------------------------------------------------------------------------

    def capture(self, transport, double seconds, records):
        """Keep headers of a transport for so long and so many records, which `take_captured` returns; records 0 = stop."""
        cdef Command c
        cdef uint32_t wanted
        self._begin(&c, CMD_TRANSPORT_CAPTURE, transport)
        if not 0 <= seconds <= CAPTURE_SECONDS or not 0 <= records <= CAPTURE_RECORDS:
            raise ValueError(f"{seconds} s and {records} records; at most {CAPTURE_SECONDS} and {CAPTURE_RECORDS}")
        wanted = records
        if wanted and self._captured == NULL:
            self._captured = capture_ring_new()
            if self._captured == NULL:
                raise MemoryError("capture")
        c.body.capture.ring = self._captured
        c.body.capture.duration_ns = <int64_t>(seconds * 1e9)
        c.body.capture.records = wanted
        return self._submit(&c)

    def take_captured(self, Py_ssize_t limit=1024):
        """Return up to `limit` records of all captures in order: (transport, now_ns, missed, kind, direction, (ip, port),
        socket index, bytes on the wire, bytes kept). missed: how many of its transport are lacking before it.
        """
        cdef CaptureRecord record
        cdef list out = []
        while self._captured != NULL and len(out) < limit and capture_take(self._captured, &record):
            out.append((record.transport, record.now_ns, record.missed, record.kind, record.direction,
                        format_address(&record.remote), record.socket_index, record.wire_bytes,
                        PyBytes_FromStringAndSize(<const char*>record.kept, record.kept_bytes)))
        return out

    # --- events ---------------------------------------------------------------------------------------------------------

    def take_events(self, Py_ssize_t limit=256):
        """Return up to `limit` events in order. When some are left, event_fd stays readable."""
        cdef Event e
        cdef list out = []
        self._need_mailbox()
        mailbox_reset_event_fd(self._mailbox)
        while len(out) < limit and mailbox_take_event(self._mailbox, &e):
            event = self._event(&e)
            if event is not None:
                out.append(event)
        if mailbox_event_count(self._mailbox) > 0:
            mailbox_ring_event_fd(self._mailbox)
        return out

    cdef object _event(self, Event* e):
        """Return the tuple of one event and free its payload; None for the acknowledgement of stop()'s own command."""
        cdef object payload = None
        cdef SockAddr address
        kind = <int>e.kind
        if e.kind == EV_ACK:
            free(e.payload)
            if e.number == 0:
                return None
            self._unanswered -= 1
            if e.number == self._snapshot_number:
                self._snapshot_number = 0
                self._has_snapshot = e.code >= 0
            return kind, e.number, e.code
        if e.kind == EV_DTLS:
            try:
                payload = PyBytes_FromStringAndSize(<const char*>e.payload, e.payload_bytes)
            finally:
                free(e.payload)
            return kind, e.transport, payload
        if e.kind == EV_ICE_SELECTED:
            if e.payload == NULL:
                # The worker had no memory for the address; the next change tells it again.
                return None
            memcpy(&address, e.payload, sizeof(SockAddr))
            free(e.payload)
            return kind, e.transport, format_address(&address)
        free(e.payload)
        if e.kind == EV_STREAM_BOUND:
            return kind, e.receiver, e.encoding, e.ssrc
        if e.kind == EV_ENCODING_ACTIVE or e.kind == EV_ENCODING_SILENT:
            return kind, e.receiver, e.encoding
        if e.kind == EV_EGRESS_SWITCHED:
            return kind, e.egress, e.encoding
        if e.kind == EV_RECEIVER_STOPPED:
            return kind, e.receiver, STOP_REASONS[e.code]
        if e.kind == EV_UNDECLARED_ENCRYPTION:
            return kind, e.receiver
        if e.kind == EV_ESTIMATE:
            return kind, e.transport, e.rate_bps, e.code, e.number
        if e.kind == EV_SPEAKING:
            return kind, e.receiver, e.code
        if e.kind == EV_LAYERS:
            return kind, e.receiver, e.encoding, e.code % 256, e.code // 256
        if e.kind == EV_STOPPED:
            return (kind,)
        if e.kind == EV_ICE_DEAD or e.kind == EV_ICE_CHECK:
            return kind, e.transport
        raise RuntimeError(f"event kind {kind}")
