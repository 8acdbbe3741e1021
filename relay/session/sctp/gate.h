/* What may reach usrsctp: a packet is checked chunk by chunk before the stack sees it.
 *
 * Spec: RFC 9260 §3, RFC 3758 §3.2, RFC 6525 §3 and §4. Released usrsctp (0.9.5.0) is older than several repairs of
 * its parsers (parameters of INIT on a running association, AUTH, ASCONF, NR-SACK, packet drop). A WebRTC endpoint
 * needs few chunk types, so all others are taken out, and lengths inside the rest must add up exactly.
 * DTLS has authenticated the bytes: the checksum guards nothing here, and is made anew when chunks were taken out.
 */

enum {
    VEIL_COMMON_HEADER = 12,
    VEIL_DROP = 0, VEIL_KEEP = 1, VEIL_STRIP = 2,
};

static uint32_t veil_u16(const uint8_t *at) {
    return ((uint32_t)at[0] << 8) | at[1];
}

/* Walk type-length-value parameters; they must fill the space exactly up to padding. allowed() judges each. */
static int veil_parameters(const uint8_t *at, size_t length, int (*allowed)(uint32_t type, const uint8_t *at, size_t n)) {
    while (length > 0) {
        size_t size, padded;

        if (length < 4)
            return 0;
        size = veil_u16(at + 2);
        if (size < 4 || size > length || !allowed(veil_u16(at), at, size))
            return 0;
        padded = (size + 3) & ~(size_t)3;
        if (padded > length)
            padded = length;
        at += padded;
        length -= padded;
    }
    return 1;
}

/* INIT and INIT ACK: no further addresses; a WebRTC association has the one path that DTLS runs on. */
static int veil_init_parameter(uint32_t type, const uint8_t *at, size_t size) {
    (void)at;
    return type != 5 && type != 6 && type != 11 && size <= 1024;
}

/* RE-CONFIG: outgoing reset, incoming reset, response. Resets of TSNs and added streams are not for WebRTC. */
static int veil_reconfig_parameter(uint32_t type, const uint8_t *at, size_t size) {
    (void)at;
    switch (type) {
    case 13:
        return size >= 16 && size % 2 == 0 && size <= 16 + 2 * VEIL_ITEM_STREAMS;
    case 14:
        return size >= 8 && size % 2 == 0 && size <= 8 + 2 * VEIL_ITEM_STREAMS;
    case 16:
        return size == 12;
    default:
        return 0;
    }
}

static int veil_heartbeat_parameter(uint32_t type, const uint8_t *at, size_t size) {
    (void)at;
    (void)size;
    return type == 1;
}

/* Judge one chunk of size bytes, header included. alone: it is the only chunk of its packet. */
static int veil_judge_chunk(const veil_association *association, const uint8_t *at, size_t size, int alone) {
    switch (at[0]) {
    case SCTP_DATA:
        return size > 16 ? VEIL_KEEP : VEIL_DROP;
    case SCTP_INITIATION:
        /* Once up, an INIT could only restart the association; a peer that starts over makes a new DTLS session. */
        return !association->up && alone && size >= 20 && veil_parameters(at + 20, size - 20, veil_init_parameter)
                   ? VEIL_KEEP : VEIL_DROP;
    case SCTP_INITIATION_ACK:
        return !association->up && alone && size >= 20 && veil_parameters(at + 20, size - 20, veil_init_parameter)
                   ? VEIL_KEEP : VEIL_DROP;
    case SCTP_SELECTIVE_ACK:
        return size >= 16 && size == 16 + 4 * (size_t)(veil_u16(at + 12) + veil_u16(at + 14)) ? VEIL_KEEP : VEIL_DROP;
    case SCTP_HEARTBEAT_REQUEST:
    case SCTP_HEARTBEAT_ACK:
        return size >= 8 && veil_parameters(at + 4, size - 4, veil_heartbeat_parameter) ? VEIL_KEEP : VEIL_DROP;
    case SCTP_ABORT_ASSOCIATION:
    case SCTP_COOKIE_ECHO:
        return VEIL_KEEP;
    case SCTP_COOKIE_ACK:
    case SCTP_SHUTDOWN_ACK:
    case SCTP_SHUTDOWN_COMPLETE:
        return size == 4 ? VEIL_KEEP : VEIL_DROP;
    case SCTP_SHUTDOWN:
        return size == 8 ? VEIL_KEEP : VEIL_DROP;
    case SCTP_STREAM_RESET:
        return size >= 8 && veil_parameters(at + 4, size - 4, veil_reconfig_parameter) ? VEIL_KEEP : VEIL_DROP;
    case SCTP_FORWARD_CUM_TSN:
        return size >= 8 && size % 4 == 0 ? VEIL_KEEP : VEIL_DROP;
    default:
        /* ERROR reports, padding and whatever we did not agree to: unread, the rest of the packet is still good. */
        return VEIL_STRIP;
    }
}

/* Copy what may pass from packet to out and return its length, 0 if nothing may. out is as large as packet. */
static size_t veil_gate(veil_association *association, const uint8_t *packet, size_t length, uint8_t *out) {
    size_t offset = VEIL_COMMON_HEADER, kept = VEIL_COMMON_HEADER;
    int stripped = 0;

    if (length < VEIL_COMMON_HEADER + 4 || length > VEIL_PACKET_BYTES || veil_u16(packet) != association->remote_port ||
        veil_u16(packet + 2) != association->local_port)
        return 0;
    memcpy(out, packet, VEIL_COMMON_HEADER);
    while (offset < length) {
        size_t size, padded;

        if (length - offset < 4)
            return 0;
        size = veil_u16(packet + offset + 2);
        padded = (size + 3) & ~(size_t)3;
        if (size < 4 || size > length - offset)
            return 0;
        if (padded > length - offset)
            padded = length - offset;
        switch (veil_judge_chunk(association, packet + offset, size,
                                 offset == VEIL_COMMON_HEADER && offset + padded >= length)) {
        case VEIL_DROP:
            return 0;
        case VEIL_KEEP:
            memcpy(out + kept, packet + offset, padded);
            kept += padded;
            break;
        default:
            stripped = 1;
            association->stripped++;
            break;
        }
        offset += padded;
    }
    if (kept == VEIL_COMMON_HEADER)
        return 0;
    if (stripped) {
        uint32_t checksum;

        memset(out + 8, 0, 4);
        checksum = usrsctp_crc32c(out, kept);
        memcpy(out + 8, &checksum, 4);
    }
    return kept;
}

/* Take one packet from the peer; 1 if the stack got it, 0 if the gate kept all of it out. */
static int veil_sctp_input(veil_association *association, const uint8_t *packet, size_t length) {
    uint8_t passed[VEIL_PACKET_BYTES];
    size_t kept = length <= sizeof(passed) ? veil_gate(association, packet, length, passed) : 0;

    if (kept == 0) {
        association->refused++;
        return 0;
    }
    if (association->socket != NULL)
        usrsctp_conninput((void *)(uintptr_t)(association->slot + 1), passed, kept, 0);
    return 1;
}
