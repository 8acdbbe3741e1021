"""RTCP as browsers speak it: a report each second, transport-wide feedback every 100 ms, NACK and PLI when wanted.

Spec: RFC 3550 sections 6.4 (SR, RR) and 6.5 (SDES), RFC 4585 (NACK, PLI), RFC 5104 section 4.3.1 (FIR), RFC 5506 (reduced size),
draft-holmer-rmcat-transport-wide-cc-extensions-01. Feedback that comes in is counted; nothing here estimates bandwidth.
"""
cimport cython
from libc.stdint cimport uint8_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t, INT64_MAX
from libc.stdlib cimport calloc
from relaycore.lgmodel cimport Endpoint, LoadThread, SendEncoding, Sender, Stream, find_stream_by_ssrc, stream_highest
from relaycore.lgsend cimport find_encoding, rtp_ts_at, sender_repeat
from relaycore.lgsocket cimport socket_send
from relaycore.rtcp cimport (
    RTCP_PSFB, RTCP_RR, RTCP_RTPFB, RTCP_SR, ReportBlock, RtcpPacket, SenderInfo, next_rtcp, parse_fir_item, parse_nack_item,
    parse_pli, parse_report_block, parse_sender_info, write_nack, write_pli, write_rr, write_sdes_cname, write_sr,
)
from relaycore.srtp cimport srtp_protect_rtcp, srtp_unprotect_rtcp
from relaycore.twcc cimport TwccRecorder, twcc_record, twcc_write_feedback
from relaycore.units cimport ms

cdef enum:
    MESSAGE_BYTES = 1200
    BUFFER_BYTES = 1300            # with what protection adds
    MAX_BLOCKS = 31
    REPORT_MS = 1000
    FEEDBACK_MS = 100              # libwebrtc's default interval
    FEEDBACK_PACKETS = 500         # earlier once so many wait: a window is 2,048
    FMT_NACK = 1
    FMT_FEEDBACK = 15
    FMT_PLI = 1
    FMT_FIR = 4

# Seconds from 1900 to 1970.
cdef const uint64_t NTP_EPOCH = 2208988800u


cdef bint _send(Endpoint* e, uint8_t* message, int n) noexcept nogil:
    """Protect in place (BUFFER_BYTES) and send."""
    cdef int whole
    if n <= 0 or e.send_context == NULL:
        return False
    whole = srtp_protect_rtcp(e.send_context, message, n, BUFFER_BYTES)
    return whole > 0 and socket_send(e, message, whole) >= 0


cdef bint report_nack(LoadThread* t, Endpoint* e, uint32_t media_ssrc, const uint16_t* seqs, int count) noexcept nogil:
    cdef uint8_t[1300] message
    return _send(e, message, write_nack(message, MESSAGE_BYTES, e.rtcp_ssrc, media_ssrc, seqs, count))


cdef bint report_pli(LoadThread* t, Endpoint* e, uint32_t media_ssrc) noexcept nogil:
    cdef uint8_t[1300] message
    return _send(e, message, write_pli(message, MESSAGE_BYTES, e.rtcp_ssrc, media_ssrc))


cdef void feedback_note(LoadThread* t, Endpoint* e, uint16_t number, uint32_t media_ssrc, int64_t arrival_ns, int64_t now_ns) noexcept nogil:
    if e.twcc == NULL:
        e.twcc = <TwccRecorder*>calloc(1, sizeof(TwccRecorder))
        if e.twcc == NULL:
            t.counts.no_memory += 1
            return
    twcc_record(e.twcc, number, arrival_ns)
    e.twcc_media_ssrc = media_ssrc
    if e.feedback_due_ns == 0:
        e.feedback_due_ns = now_ns + ms(FEEDBACK_MS)
    elif e.twcc.pending >= FEEDBACK_PACKETS:
        e.feedback_due_ns = now_ns


cdef void _send_feedback(LoadThread* t, Endpoint* e) noexcept nogil:
    cdef uint8_t[1300] message
    cdef int n, i
    # What does not fit one message goes into the next.
    for i in range(8):
        n = twcc_write_feedback(e.twcc, message, MESSAGE_BYTES, e.rtcp_ssrc, e.twcc_media_ssrc)
        if n <= 0:
            break
        if _send(e, message, n):
            e.counts.feedback_sent += 1
    e.feedback_due_ns = 0


# --- reports ---------------------------------------------------------------------------------------------------------

@cython.cdivision(True)
cdef uint64_t _ntp(int64_t real_ns) noexcept nogil:
    cdef uint64_t seconds = <uint64_t>(real_ns // 1000000000)
    cdef uint64_t rest = <uint64_t>(real_ns % 1000000000)
    return ((seconds + NTP_EPOCH) << 32) | ((rest << 32) // 1000000000u)


@cython.cdivision(True)
cdef void _fill_block(Stream* s, ReportBlock* b, int64_t now_ns) noexcept nogil:
    """Spec: RFC 3550 section 6.4.1 and appendix A.3. RTX does not make up for a loss here."""
    cdef int64_t expected = stream_highest(s) - s.base_seq + 1
    cdef int64_t received = <int64_t>s.received
    cdef int64_t expected_now = expected - s.expected_prior
    cdef int64_t lost_now = expected_now - (received - s.received_prior)
    s.expected_prior = expected
    s.received_prior = received
    b.ssrc = s.ssrc
    b.fraction_lost = <uint8_t>(min((lost_now << 8) // expected_now, <int64_t>255)) if expected_now > 0 and lost_now > 0 else 0
    b.total_lost = <int32_t>max(min(expected - received, <int64_t>0x7fffff), <int64_t>(-0x800000))
    b.ext_highest_seq = <uint32_t>(<uint64_t>stream_highest(s) & 0xffffffffu)
    b.jitter = s.jitter_16 >> 4
    b.last_sr = s.sr_middle
    b.delay_since_sr = 0
    if s.sr_middle:
        b.delay_since_sr = <uint32_t>((((now_ns - s.sr_arrival_ns) // 1000) << 16) // 1000000)


cdef void _send_receiver_reports(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    cdef uint8_t[1300] message
    cdef ReportBlock[31] blocks
    cdef int count = 0
    cdef int i
    for i in range(e.stream_count):
        if e.streams[i].seen.started:
            _fill_block(e.streams[i], &blocks[count], now_ns)
            count += 1
        if count and (count == MAX_BLOCKS or i + 1 == e.stream_count):
            _send(e, message, write_rr(message, MESSAGE_BYTES, e.rtcp_ssrc, blocks, count))
            count = 0


cdef void _send_sender_report(LoadThread* t, Endpoint* e, Sender* s, SendEncoding* x, int64_t now_ns) noexcept nogil:
    cdef uint8_t[1300] message
    cdef SenderInfo info
    cdef int n, more
    info.ntp = _ntp(now_ns + t.real_offset_ns)
    info.rtp_ts = rtp_ts_at(s, x, now_ns)
    info.packets = <uint32_t>(x.total_packets & 0xffffffffu)
    info.octets = <uint32_t>(x.total_bytes & 0xffffffffu)
    n = write_sr(message, MESSAGE_BYTES, x.ssrc, &info, NULL, 0)
    if n < 0:
        return
    more = write_sdes_cname(message + n, MESSAGE_BYTES - n, x.ssrc, e.cname, e.cname_bytes)
    if more > 0:
        n += more
    if _send(e, message, n):
        x.sr_middle = <uint32_t>((info.ntp >> 16) & 0xffffffffu)
        x.sr_sent_ns = now_ns


cdef void _send_reports(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    cdef int i, k
    for i in range(e.sender_count):
        for k in range(e.senders[i].encoding_count):
            if e.senders[i].encodings[k].total_packets and e.senders[i].encodings[k].is_active:
                _send_sender_report(t, e, e.senders[i], &e.senders[i].encodings[k], now_ns)
    _send_receiver_reports(t, e, now_ns)


cdef int64_t reports_poll(LoadThread* t, Endpoint* e, int64_t now_ns) noexcept nogil:
    if not e.ice.connected or e.send_context == NULL:
        return INT64_MAX
    if e.report_due_ns == 0:
        # Spread over the second, so that thousands do not report in one moment.
        e.report_due_ns = now_ns + ms(REPORT_MS) * (e.id & 63) // 64
    if e.report_due_ns <= now_ns:
        _send_reports(t, e, now_ns)
        e.report_due_ns = max(e.report_due_ns + ms(REPORT_MS), now_ns + ms(REPORT_MS) // 2)
    if e.feedback_due_ns and e.feedback_due_ns <= now_ns:
        _send_feedback(t, e)
    return min(e.report_due_ns, e.feedback_due_ns if e.feedback_due_ns else INT64_MAX)


# --- what comes in ---------------------------------------------------------------------------------------------------

@cython.cdivision(True)
cdef void _on_blocks(LoadThread* t, Endpoint* e, const RtcpPacket* p, int64_t arrival_ns) noexcept nogil:
    cdef ReportBlock b
    cdef Sender* s = NULL
    cdef SendEncoding* x
    cdef int64_t rtt_ns
    cdef int i
    for i in range(p.count):
        if parse_report_block(p, i, &b) < 0:
            e.counts.malformed += 1
            return
        x = find_encoding(e, b.ssrc, &s)
        if x == NULL:
            continue
        x.reported = 1
        x.counts.reports += 1
        x.fraction_lost = b.fraction_lost
        x.total_lost = b.total_lost
        if b.last_sr and b.last_sr == x.sr_middle:
            rtt_ns = arrival_ns - x.sr_sent_ns - ((<int64_t>b.delay_since_sr * 1000000000) >> 16)
            if rtt_ns > 0:
                x.rtt_ns = rtt_ns


cdef void _on_sender_report(Endpoint* e, const RtcpPacket* p, int64_t arrival_ns) noexcept nogil:
    cdef SenderInfo info
    cdef Stream* s = find_stream_by_ssrc(e, p.ssrc)
    if s == NULL or parse_sender_info(p, &info) < 0:
        return
    s.sr_middle = <uint32_t>((info.ntp >> 16) & 0xffffffffu)
    s.sr_arrival_ns = arrival_ns


cdef void _on_nack(LoadThread* t, Endpoint* e, const RtcpPacket* p, int64_t now_ns) noexcept nogil:
    cdef uint32_t ssrc = 0
    cdef uint16_t pid = 0
    cdef uint16_t blp = 0
    cdef Sender* s = NULL
    cdef SendEncoding* x
    cdef int i = 0
    cdef int bit
    while parse_nack_item(p, i, &ssrc, &pid, &blp) >= 0:
        x = find_encoding(e, ssrc, &s)
        if x == NULL:
            return
        sender_repeat(t, e, s, x, pid, now_ns)
        for bit in range(16):
            if (blp >> bit) & 1:
                sender_repeat(t, e, s, x, <uint16_t>(pid + 1 + bit), now_ns)
        i += 1


cdef void _on_fir(Endpoint* e, const RtcpPacket* p) noexcept nogil:
    cdef uint32_t ssrc = 0
    cdef uint8_t command_seq = 0
    cdef Sender* s = NULL
    cdef SendEncoding* x
    cdef int i = 0
    while parse_fir_item(p, i, &ssrc, &command_seq) >= 0:
        x = find_encoding(e, ssrc, &s)
        if x != NULL:
            x.counts.firs += 1
            x.wants_keyframe = 1
        i += 1


cdef void _on_packet(LoadThread* t, Endpoint* e, const RtcpPacket* p, int64_t arrival_ns, int64_t now_ns) noexcept nogil:
    cdef uint32_t ssrc = 0
    cdef Sender* s = NULL
    cdef SendEncoding* x
    if p.type == RTCP_SR:
        _on_sender_report(e, p, arrival_ns)
        _on_blocks(t, e, p, arrival_ns)
    elif p.type == RTCP_RR:
        _on_blocks(t, e, p, arrival_ns)
    elif p.type == RTCP_RTPFB and p.count == FMT_NACK:
        _on_nack(t, e, p, now_ns)
    elif p.type == RTCP_RTPFB and p.count == FMT_FEEDBACK:
        e.counts.feedback_received += 1
    elif p.type == RTCP_PSFB and p.count == FMT_PLI and parse_pli(p, &ssrc) >= 0:
        x = find_encoding(e, ssrc, &s)
        if x != NULL:
            x.counts.plis += 1
            x.wants_keyframe = 1
    elif p.type == RTCP_PSFB and p.count == FMT_FIR:
        _on_fir(e, p)


cdef void receive_rtcp(LoadThread* t, Endpoint* e, uint8_t* packet, Py_ssize_t n, int64_t arrival_ns, int64_t now_ns) noexcept nogil:
    cdef RtcpPacket p
    cdef Py_ssize_t cursor = 0
    cdef int found
    cdef int whole
    if e.receive_context == NULL:
        return
    whole = srtp_unprotect_rtcp(e.receive_context, packet, n)
    if whole < 0:
        e.counts.unauthentic += 1
        return
    e.counts.rtcp_received += 1
    found = next_rtcp(packet, whole, &cursor, &p)
    while found > 0:
        _on_packet(t, e, &p, arrival_ns, now_ns)
        found = next_rtcp(packet, whole, &cursor, &p)
    if found < 0:
        e.counts.malformed += 1
