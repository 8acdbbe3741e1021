"""Header, levelling, protection; the contract stands in emission.pxd."""
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t
from libc.string cimport memset
from relaycore.bandwidth cimport IP_UDP_BYTES, bandwidth_departed
from relaycore.be cimport put_u16, put_u24
from relaycore.capture cimport CAPTURE_SENT, capture_rtp
from relaycore.depdesc cimport DD_GROWS, DdRewrite, rewrite_depdesc
from relaycore.hdrext cimport (
    EXT_ABS_SEND_TIME, EXT_DD, EXT_MID, EXT_PLAYOUT_DELAY, EXT_REPAIRED_RID, EXT_RID, EXT_TOFFSET, EXT_TWCC, ExtElement, ExtView, write_hdrext,
)
from relaycore.pacer cimport pacer_pay_media
from relaycore.playout cimport PLAYOUT_EXT_BYTES, playout_write
from relaycore.reports cimport count_error, send_slot
from relaycore.routes cimport Egress, Engine, PacketFacts, Transport
from relaycore.rtp cimport write_rtp_fixed
from relaycore.slab cimport Slot, slot_drop, slot_hold
from relaycore.srtp cimport srtp_protect_rtp
from relaycore.stages cimport STAGE_PROTECT, STAGE_ROUTE, stage_begin, stage_end_inside

cdef enum:
    # Padding a packet by more than a twentieth costs more on the wire than a second send does here.
    LEVEL_SHARE = 20
    TAG_BYTES = 16                 # of AEAD; SHA1_80 has ten
    DESCRIPTOR_BYTES = 255         # of an element in the two-byte form (RFC 8285 section 4.3)
    DD_LEAST = 3
    LEVEL_MAX = 255                # RTP padding counts itself in one byte (RFC 3550 section 5.1)
    # Hop-by-hop extensions: meant for us, or written anew for each subscriber.
    NOT_FORWARDED = (1 << EXT_MID | 1 << EXT_RID | 1 << EXT_REPAIRED_RID | 1 << EXT_TWCC | 1 << EXT_ABS_SEND_TIME
                     | 1 << EXT_TOFFSET)


cdef inline uint32_t _abs_send_time(int64_t now_ns) noexcept nogil:
    """Seconds as 6.18 fixed point, mod 64 s (webrtc.org abs-send-time)."""
    return <uint32_t>(((<uint64_t>now_ns % 64000000000u) << 18) // 1000000000u & 0xffffffu)


cdef void _rewrite_descriptor(ExtElement* element, const PacketFacts* f, const HeaderRules* rules, uint8_t* dst) noexcept nogil:
    """Put a Dependency Descriptor for this receiver in the place of the sender's, as far as there is room."""
    cdef DdRewrite w
    if element.bytes < DD_LEAST:
        return
    w.frame_offset = rules.frame_offset
    w.targets = f.view.dd_targets if rules.names_active and element.bytes <= DESCRIPTOR_BYTES - DD_GROWS else 0
    w.has_active = f.view.dd_has_active
    w.active_at = f.view.dd_active_at
    w.active = rules.active
    if element.bytes <= DESCRIPTOR_BYTES:
        element.bytes = <uint16_t>rewrite_depdesc(element.data, element.bytes, &w, dst)
        element.data = dst


cdef int write_header(Transport* t, Egress* g, const PacketFacts* f, uint8_t* dst, Py_ssize_t cap, uint32_t ssrc,
                      uint8_t payload_type, int64_t out_seq, uint32_t out_ts, const HeaderRules* rules, int64_t now_ns) noexcept nogil:
    cdef ExtView x = f.extensions
    cdef uint8_t number[2]
    cdef uint8_t sent_at[3]
    cdef uint8_t playout[3]
    cdef uint8_t descriptor[256]
    cdef uint8_t marker = f.rtp.marker
    cdef int n
    x.present &= ~<uint32_t>NOT_FORWARDED
    # What is sent again has an SSRC of its own, on which nobody reports: Firefox drops it where it stands in an answer alone.
    if (not g.mid_known or ssrc == g.spec.rtx_ssrc) and g.spec.mid_bytes:
        x.present |= 1u << EXT_MID
        x.by_kind[EXT_MID].data = g.spec.mid
        x.by_kind[EXT_MID].bytes = g.spec.mid_bytes
    # Video alone: what a receiver does not report on would look lost, and Firefox reports on no audio.
    if g.is_video and t.sent_extensions.id_of_kind[EXT_TWCC]:
        put_u16(number, t.twcc_next)
        t.twcc_next = <uint16_t>(t.twcc_next + 1u)
        x.present |= 1u << EXT_TWCC
        x.by_kind[EXT_TWCC].data = number
        x.by_kind[EXT_TWCC].bytes = 2
    if t.sent_extensions.id_of_kind[EXT_ABS_SEND_TIME]:
        put_u24(sent_at, _abs_send_time(now_ns))
        x.present |= 1u << EXT_ABS_SEND_TIME
        x.by_kind[EXT_ABS_SEND_TIME].data = sent_at
        x.by_kind[EXT_ABS_SEND_TIME].bytes = 3
    if g.playout.is_told and g.is_video and t.sent_extensions.id_of_kind[EXT_PLAYOUT_DELAY]:
        playout_write(&g.playout, playout)
        x.present |= 1u << EXT_PLAYOUT_DELAY
        x.by_kind[EXT_PLAYOUT_DELAY].data = playout
        x.by_kind[EXT_PLAYOUT_DELAY].bytes = PLAYOUT_EXT_BYTES
    if rules != NULL and (rules.names_active or rules.frame_offset) and x.present >> EXT_DD & 1:
        _rewrite_descriptor(&x.by_kind[EXT_DD], f, rules, descriptor)
    n = write_hdrext(dst + FIXED_HEADER_BYTES, cap - FIXED_HEADER_BYTES, &t.sent_extensions, &x)
    if n < 0:
        return n
    # At its sender the marker stands on the last packet of a picture with all its layers (RFC 9628 section 4.1).
    if rules != NULL and f.view.spatial_id == rules.top:
        marker |= f.view.end_of_frame
    write_rtp_fixed(dst, n > 0, False, marker, payload_type, <uint16_t>(out_seq & 0xffff), out_ts, ssrc)
    return FIXED_HEADER_BYTES + n


cdef inline int32_t _length(const Staged* item) noexcept nogil:
    return item.header_bytes + item.payload_bytes


cdef inline bint _pad(Engine* e, Staged* item, int32_t wanted) noexcept nogil:
    """Bring a packet to `wanted` bytes by RTP padding behind its payload; false when that is too much, or has no room."""
    cdef int32_t padding = wanted - _length(item)
    cdef int32_t room = item.source.capacity - <int32_t>(item.payload - item.source.data) - item.payload_bytes
    if padding == 0:
        return True
    if padding > LEVEL_MAX or padding > wanted // LEVEL_SHARE or padding > room:
        return False
    # The clear packet behind its payload is nobody's: its tag has been checked.
    memset(item.payload + item.payload_bytes, 0, <size_t>padding)
    item.payload[item.payload_bytes + padding - 1] = <uint8_t>padding
    item.payload_bytes += padding
    item.out.data[0] |= <uint8_t>RTP_P_BIT
    e.counters.levelling_bytes += <uint64_t>padding
    return True


cdef void run_send(Engine* e, Run* run) noexcept nogil:
    cdef Transport* t = run.transport
    cdef Egress* g = run.egress
    cdef Staged* item
    cdef int32_t i, n
    cdef int32_t longest = 0
    cdef bint fresh = True
    cdef int32_t count = run.count
    cdef uint64_t began = stage_begin(&e.counters)
    cdef int32_t rest[16]          # the longest from here on: what a send that begins here is brought to
    if run.count == 0:
        return
    for i in range(run.count - 1, -1, -1):
        if _length(&run.items[i]) > longest:
            longest = _length(&run.items[i])
        rest[i] = longest
    longest = 0
    for i in range(run.count):
        item = &run.items[i]
        if fresh:
            e.outbox.next_run += 1
            longest = rest[i]
            fresh = False
        # A shorter packet may only be the last of a GSO send (LIMITS section 4d).
        if _length(item) < longest and i < run.count - 1 and not (e.outbox.takes_gso and _pad(e, item, longest)):
            fresh = True
        n = srtp_protect_rtp(t.send_context, &g.srtp, item.out_seq, item.out.data, item.header_bytes, item.payload,
                             item.payload_bytes)
        slot_drop(e.slab, item.source)
        if n < 0:
            count_error(e, n)
            slot_drop(e.slab, item.out)
            continue
        item.out.length = <uint16_t>n
        # A header stays clear under SRTP; behind it stands ciphertext, which is not looked at.
        capture_rtp(&t.capture, CAPTURE_SENT, &t.ice, t.ice.selected, item.out.data, item.header_bytes, n, e.now_ns)
        g.packets += 1
        g.bytes += <uint64_t>n
        g.payload_bytes += <uint64_t>item.payload_bytes
        e.counters.rtp_forwarded += 1
        send_slot(e, t, item.out, e.outbox.next_run)
    run.count = 0
    stage_end_inside(&e.counters, STAGE_PROTECT, STAGE_ROUTE, began, <uint64_t>count)


cdef void run_add(Engine* e, Run* run, Transport* t, Egress* g, uint32_t out_ts, const Staged* item) noexcept nogil:
    if run.count and (run.egress != g or run.out_ts != out_ts or run.count == RUN_MAX):
        run_send(e, run)
    if run.count == 0:
        run.transport = t
        run.egress = g
        run.out_ts = out_ts
    if g.is_video and t.sent_extensions.id_of_kind[EXT_TWCC]:
        bandwidth_departed(e, t, <uint16_t>((t.twcc_next - 1u) & 0xffffu), item.header_bytes + item.payload_bytes + TAG_BYTES,
                           run.now_ns)
    slot_hold(item.source)
    run.items[run.count] = item[0]
    pacer_pay_media(&t.pacer, item.header_bytes + item.payload_bytes + TAG_BYTES + IP_UDP_BYTES, run.now_ns)
    run.count += 1
