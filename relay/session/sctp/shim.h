/* The C side of the SCTP binding: every struct of usrsctp stays here, Python sees flat values.
 *
 * usrsctp is process-global and calls back with the address of an endpoint. That address is a slot number in a table
 * of live associations, never a pointer: a callback for an association that is gone finds an empty slot. Slots are
 * reused oldest first and their addresses stay registered, because taking an address back makes usrsctp hand work to
 * a second thread. One thread uses all of this; timers are driven by veil_sctp_advance.
 *
 * Outgoing packets are copied into a bounded queue per association; nothing calls into Python.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <usrsctp.h>

enum {
    VEIL_SLOTS = 16384,
    VEIL_PACKET_BYTES = 2048,       /* above our MTU and above MAX_DATAGRAM_BYTES of dtls.py */
    VEIL_QUEUE_PACKETS = 512,       /* outgoing packets one association may pile up between two polls */
    VEIL_RESET_STREAMS = 128,       /* streams in one RE-CONFIG of ours */
    VEIL_ITEM_STREAMS = 1024,

    VEIL_NOTHING = 0, VEIL_MESSAGE = 1, VEIL_UP = 2, VEIL_LOST = 3, VEIL_STREAMS_RESET_IN = 4,
    VEIL_STREAMS_RESET_OUT = 5, VEIL_STREAMS_RESET_FAILED = 6, VEIL_SHUTDOWN = 7, VEIL_PARTIAL_ABORTED = 8,
    VEIL_OTHER = 9,

    VEIL_RELIABLE = 0, VEIL_MAX_RETRANSMITS = 1, VEIL_MAX_LIFETIME = 2,
};

typedef struct veil_packet {
    struct veil_packet *next;
    size_t length;
    uint8_t bytes[];
} veil_packet;

/* Owned by Python's Association from veil_sctp_open to veil_sctp_free. */
typedef struct veil_association {
    struct socket *socket;          /* NULL once closed */
    uint32_t slot;
    int up;                         /* COMM_UP was read: a further INIT is refused */
    uint16_t local_port, remote_port;
    veil_packet *head, *tail;
    uint32_t queued;
    uint32_t dropped;               /* outgoing packets that found the queue full */
    uint32_t refused;               /* incoming packets that the gate did not let through */
    uint32_t stripped;              /* incoming chunks the gate took out of a packet */
} veil_association;

/* One thing read from an association. For a message, ppid and stream are set and eor says whether it is whole. */
typedef struct {
    int kind;
    int eor;
    int unordered;
    uint32_t ppid;
    uint16_t stream;
    uint16_t state;
    uint16_t error;
    uint16_t stream_count;          /* 0 in a reset means all streams */
    uint16_t outbound_streams, inbound_streams;
    size_t length;
    uint16_t streams[VEIL_ITEM_STREAMS];
} veil_item;

static veil_association *veil_slot_owner[VEIL_SLOTS];   /* index = address - 1 */
static uint32_t veil_free_slots[VEIL_SLOTS];            /* ring of slots that were used before */
static uint32_t veil_free_head, veil_free_count, veil_slots_used;
static int veil_started;

static int veil_on_output(void *address, void *buffer, size_t length, uint8_t tos, uint8_t set_df) {
    uintptr_t slot = (uintptr_t)address - 1;
    veil_association *owner;
    veil_packet *packet;

    (void)tos;
    (void)set_df;
    if (slot >= VEIL_SLOTS || (owner = veil_slot_owner[slot]) == NULL)
        return 0;
    if (owner->queued >= VEIL_QUEUE_PACKETS || length > VEIL_PACKET_BYTES) {
        owner->dropped++;
        return 0;
    }
    packet = malloc(sizeof(*packet) + length);
    if (packet == NULL) {
        owner->dropped++;
        return 0;
    }
    packet->next = NULL;
    packet->length = length;
    memcpy(packet->bytes, buffer, length);
    if (owner->tail != NULL)
        owner->tail->next = packet;
    else
        owner->head = packet;
    owner->tail = packet;
    owner->queued++;
    return 0;
}

/* Start the stack once per process. What a WebRTC endpoint never uses is switched off: less code for a peer to reach. */
static void veil_sctp_start(void) {
    if (veil_started)
        return;
    veil_started = 1;
    usrsctp_init_nothreads(0, veil_on_output, NULL);
    usrsctp_sysctl_set_sctp_blackhole(2);
    usrsctp_sysctl_set_sctp_asconf_enable(0);
    usrsctp_sysctl_set_sctp_auto_asconf(0);
    usrsctp_sysctl_set_sctp_auth_enable(0);
    usrsctp_sysctl_set_sctp_ecn_enable(0);
    usrsctp_sysctl_set_sctp_nrsack_enable(0);
    usrsctp_sysctl_set_sctp_pktdrop_enable(0);
    usrsctp_sysctl_set_sctp_no_csum_on_loopback(0);
    usrsctp_sysctl_set_sctp_initial_cwnd(10);           /* dcSCTP: cwnd_mtus_initial = 10 */
    usrsctp_sysctl_set_sctp_max_burst_default(10);
    usrsctp_sysctl_set_sctp_delayed_sack_time_default(50);
    usrsctp_sysctl_set_sctp_heartbeat_interval_default(0);
}

static void veil_sctp_advance(uint32_t elapsed_ms) {
    if (veil_started)
        usrsctp_handle_timers(elapsed_ms);
}

static int veil_option(struct socket *socket, int name, const void *value, size_t length) {
    return usrsctp_setsockopt(socket, IPPROTO_SCTP, name, value, (socklen_t)length);
}

static int veil_configure(struct socket *socket, uint32_t mtu_bytes, uint32_t max_message_bytes, uint16_t streams) {
    static const uint16_t wanted[] = {SCTP_ASSOC_CHANGE, SCTP_STREAM_RESET_EVENT, SCTP_SHUTDOWN_EVENT,
                                      SCTP_PARTIAL_DELIVERY_EVENT};
    struct linger abort_on_close = {1, 0};
    int on = 1, receive_bytes = 262144, send_bytes = 262144;
    uint32_t delivery_point = max_message_bytes + 1;
    struct sctp_assoc_value reset = {SCTP_ALL_ASSOC, SCTP_ENABLE_RESET_STREAM_REQ};
    struct sctp_initmsg init = {streams, streams, 10, 3000};
    struct sctp_rtoinfo rto = {0, 500, 10000, 400};     /* dcSCTP: rto_initial 500 ms, rto_min 400 ms */
    struct sctp_paddrparams path;
    struct sctp_event event;
    size_t i;

    if (usrsctp_set_non_blocking(socket, 1) < 0 ||
        usrsctp_setsockopt(socket, SOL_SOCKET, SO_LINGER, &abort_on_close, sizeof(abort_on_close)) < 0 ||
        usrsctp_setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)) < 0 ||
        usrsctp_setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes)) < 0 ||
        veil_option(socket, SCTP_NODELAY, &on, sizeof(on)) < 0 ||
        veil_option(socket, SCTP_RECVRCVINFO, &on, sizeof(on)) < 0 ||
        veil_option(socket, SCTP_PARTIAL_DELIVERY_POINT, &delivery_point, sizeof(delivery_point)) < 0 ||
        veil_option(socket, SCTP_ENABLE_STREAM_RESET, &reset, sizeof(reset)) < 0 ||
        veil_option(socket, SCTP_INITMSG, &init, sizeof(init)) < 0 ||
        veil_option(socket, SCTP_RTOINFO, &rto, sizeof(rto)) < 0)
        return -1;
    memset(&path, 0, sizeof(path));
    path.spp_assoc_id = SCTP_FUTURE_ASSOC;
    path.spp_flags = SPP_PMTUD_DISABLE | SPP_HB_DISABLE;
    path.spp_pathmtu = mtu_bytes - (uint32_t)sizeof(struct sctp_common_header);
    if (veil_option(socket, SCTP_PEER_ADDR_PARAMS, &path, sizeof(path)) < 0)
        return -1;
    memset(&event, 0, sizeof(event));
    event.se_assoc_id = SCTP_ALL_ASSOC;
    event.se_on = 1;
    for (i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        event.se_type = wanted[i];
        if (veil_option(socket, SCTP_EVENT, &event, sizeof(event)) < 0)
            return -1;
    }
    return 0;
}

static void veil_set_address(struct sockaddr_conn *address, uint32_t slot, uint16_t port) {
    memset(address, 0, sizeof(*address));
    address->sconn_family = AF_CONN;
    address->sconn_port = htons(port);
    address->sconn_addr = (void *)(uintptr_t)(slot + 1);
}

static int veil_take_slot(uint32_t *slot) {
    if (veil_slots_used < VEIL_SLOTS && veil_free_count < 64) {
        /* A fresh slot while few are free: reuse happens late, long after the last user left. */
        *slot = veil_slots_used++;
        usrsctp_register_address((void *)(uintptr_t)(*slot + 1));
        return 0;
    }
    if (veil_free_count == 0)
        return -1;
    *slot = veil_free_slots[veil_free_head];
    veil_free_head = (veil_free_head + 1) % VEIL_SLOTS;
    veil_free_count--;
    return 0;
}

static void veil_return_slot(uint32_t slot) {
    veil_slot_owner[slot] = NULL;
    veil_free_slots[(veil_free_head + veil_free_count) % VEIL_SLOTS] = slot;
    veil_free_count++;
}

/* Bind, connect and return a new association; NULL with errno set. Both ends connect at once, as WebRTC does. */
static veil_association *veil_sctp_open(uint16_t local_port, uint16_t remote_port, uint32_t mtu_bytes,
                                        uint32_t max_message_bytes, uint16_t streams) {
    veil_association *association = calloc(1, sizeof(*association));
    struct sockaddr_conn address;
    int saved;

    if (association == NULL)
        return NULL;
    if (veil_take_slot(&association->slot) < 0) {
        free(association);
        errno = EADDRNOTAVAIL;
        return NULL;
    }
    veil_slot_owner[association->slot] = association;
    association->local_port = local_port;
    association->remote_port = remote_port;
    association->socket = usrsctp_socket(AF_CONN, SOCK_STREAM, IPPROTO_SCTP, NULL, NULL, 0, NULL);
    if (association->socket == NULL || veil_configure(association->socket, mtu_bytes, max_message_bytes, streams) < 0)
        goto failed;
    veil_set_address(&address, association->slot, local_port);
    if (usrsctp_bind(association->socket, (struct sockaddr *)&address, sizeof(address)) < 0)
        goto failed;
    veil_set_address(&address, association->slot, remote_port);
    if (usrsctp_connect(association->socket, (struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS)
        goto failed;
    return association;
failed:
    saved = errno;
    if (association->socket != NULL)
        usrsctp_close(association->socket);
    veil_return_slot(association->slot);
    while (association->head != NULL) {
        veil_packet *next = association->head->next;
        free(association->head);
        association->head = next;
    }
    free(association);
    errno = saved;
    return NULL;
}

/* Take the next outgoing packet; returns its length, 0 if there is none. out holds VEIL_PACKET_BYTES. */
static size_t veil_sctp_next_packet(veil_association *association, uint8_t *out) {
    veil_packet *packet = association->head;
    size_t length;

    if (packet == NULL)
        return 0;
    association->head = packet->next;
    if (association->head == NULL)
        association->tail = NULL;
    association->queued--;
    length = packet->length;
    memcpy(out, packet->bytes, length);
    free(packet);
    return length;
}

static void veil_read_notification(veil_association *association, const uint8_t *bytes, size_t length, veil_item *item) {
    union sctp_notification fixed;
    size_t header = sizeof(fixed.sn_header), i, count;

    item->kind = VEIL_OTHER;
    if (length < header)
        return;
    memset(&fixed, 0, sizeof(fixed));
    memcpy(&fixed, bytes, length < sizeof(fixed) ? length : sizeof(fixed));
    switch (fixed.sn_header.sn_type) {
    case SCTP_ASSOC_CHANGE:
        item->state = fixed.sn_assoc_change.sac_state;
        item->error = fixed.sn_assoc_change.sac_error;
        if (item->state == SCTP_COMM_UP) {
            item->kind = VEIL_UP;
            item->outbound_streams = fixed.sn_assoc_change.sac_outbound_streams;
            item->inbound_streams = fixed.sn_assoc_change.sac_inbound_streams;
            association->up = 1;
        } else {
            item->kind = VEIL_LOST;     /* A restart, too: streams and numbers would start over. */
        }
        break;
    case SCTP_SHUTDOWN_EVENT:
        item->kind = VEIL_SHUTDOWN;
        break;
    case SCTP_PARTIAL_DELIVERY_EVENT:
        item->kind = VEIL_PARTIAL_ABORTED;
        break;
    case SCTP_STREAM_RESET_EVENT:
        if (fixed.sn_strreset_event.strreset_flags & (SCTP_STREAM_RESET_DENIED | SCTP_STREAM_RESET_FAILED))
            item->kind = VEIL_STREAMS_RESET_FAILED;
        else if (fixed.sn_strreset_event.strreset_flags & SCTP_STREAM_RESET_INCOMING_SSN)
            item->kind = VEIL_STREAMS_RESET_IN;
        else
            item->kind = VEIL_STREAMS_RESET_OUT;
        count = (length - sizeof(struct sctp_stream_reset_event)) / sizeof(uint16_t);
        if (length < sizeof(struct sctp_stream_reset_event))
            count = 0;
        if (count > VEIL_ITEM_STREAMS)
            count = VEIL_ITEM_STREAMS;
        for (i = 0; i < count; i++)
            memcpy(&item->streams[i], bytes + sizeof(struct sctp_stream_reset_event) + 2 * i, 2);
        item->stream_count = (uint16_t)count;
        break;
    default:
        break;
    }
}

/* Read one item; message bytes go to buffer. A message longer than capacity comes in parts without eor. */
static void veil_sctp_read(veil_association *association, uint8_t *buffer, size_t capacity, veil_item *item) {
    struct sctp_rcvinfo info;
    socklen_t info_length = sizeof(info), from_length = 0;
    unsigned int info_type = SCTP_RECVV_NOINFO;
    int flags = 0;
    ssize_t length;

    item->kind = VEIL_NOTHING;
    if (association->socket == NULL)
        return;
    memset(&info, 0, sizeof(info));
    length = usrsctp_recvv(association->socket, buffer, capacity, NULL, &from_length, &info, &info_length, &info_type,
                           &flags);
    if (length < 0) {
        if (errno != EWOULDBLOCK && errno != EAGAIN && errno != EINPROGRESS && errno != ENOTCONN) {
            item->kind = VEIL_LOST;
            item->error = (uint16_t)errno;
        }
        return;
    }
    if (flags & MSG_NOTIFICATION) {
        veil_read_notification(association, buffer, (size_t)length, item);
        return;
    }
    if (length == 0) {
        item->kind = VEIL_LOST;
        return;
    }
    item->kind = VEIL_MESSAGE;
    item->eor = (flags & MSG_EOR) != 0;
    item->unordered = (info.rcv_flags & SCTP_UNORDERED) != 0;
    item->ppid = ntohl(info.rcv_ppid);
    item->stream = info.rcv_sid;
    item->length = (size_t)length;
}

/* Queue one message; 1 if taken, 0 if there is no room now, -1 if the association cannot send (errno). */
static int veil_sctp_send(veil_association *association, uint16_t stream, uint32_t ppid, int unordered, int policy,
                          uint32_t policy_value, const uint8_t *data, size_t length) {
    struct sctp_sendv_spa how;

    if (association->socket == NULL) {
        errno = ENOTCONN;
        return -1;
    }
    memset(&how, 0, sizeof(how));
    how.sendv_flags = SCTP_SEND_SNDINFO_VALID;
    how.sendv_sndinfo.snd_sid = stream;
    how.sendv_sndinfo.snd_flags = SCTP_EOR | (unordered ? SCTP_UNORDERED : 0);
    how.sendv_sndinfo.snd_ppid = htonl(ppid);
    if (policy != VEIL_RELIABLE) {
        how.sendv_flags |= SCTP_SEND_PRINFO_VALID;
        how.sendv_prinfo.pr_policy = policy == VEIL_MAX_RETRANSMITS ? SCTP_PR_SCTP_RTX : SCTP_PR_SCTP_TTL;
        how.sendv_prinfo.pr_value = policy_value;
    }
    if (usrsctp_sendv(association->socket, data, length, NULL, 0, &how, (socklen_t)sizeof(how), SCTP_SENDV_SPA, 0) >= 0)
        return 1;
    return errno == EWOULDBLOCK || errno == EAGAIN ? 0 : -1;
}

/* Reset our half of some streams (RFC 6525 §5.1.2); 0, or -1 with errno (EALREADY: one request is under way). */
static int veil_sctp_reset(veil_association *association, const uint16_t *streams, uint16_t count) {
    uint64_t aligned[(sizeof(struct sctp_reset_streams) + 2 * VEIL_RESET_STREAMS) / 8 + 1];
    struct sctp_reset_streams *request = (struct sctp_reset_streams *)aligned;

    if (association->socket == NULL || count == 0 || count > VEIL_RESET_STREAMS) {
        errno = EINVAL;
        return -1;
    }
    memset(aligned, 0, sizeof(aligned));
    request->srs_assoc_id = SCTP_ALL_ASSOC;
    request->srs_flags = SCTP_STREAM_RESET_OUTGOING;
    request->srs_number_streams = count;
    memcpy(request->srs_stream_list, streams, 2 * (size_t)count);
    return veil_option(association->socket, SCTP_RESET_STREAMS, request,
                       sizeof(struct sctp_reset_streams) + 2 * (size_t)count);
}

/* Chunks queued or in flight; 0 if unknown. */
static uint32_t veil_sctp_outstanding(veil_association *association) {
    struct sctp_status status;
    socklen_t length = sizeof(status);

    memset(&status, 0, sizeof(status));
    if (association->socket == NULL ||
        usrsctp_getsockopt(association->socket, IPPROTO_SCTP, SCTP_STATUS, &status, &length) < 0)
        return 0;
    return (uint32_t)status.sstat_unackdata + status.sstat_penddata;
}

/* Abort; the ABORT waits in the outgoing queue. Nothing comes in any more. */
static void veil_sctp_close(veil_association *association) {
    if (association->socket != NULL) {
        usrsctp_close(association->socket);
        association->socket = NULL;
    }
}

static void veil_sctp_free(veil_association *association) {
    veil_sctp_close(association);
    veil_return_slot(association->slot);
    while (association->head != NULL) {
        veil_packet *next = association->head->next;
        free(association->head);
        association->head = next;
    }
    free(association);
}

/* Associations usrsctp still holds, for leak checks. */
static uint32_t veil_sctp_live(void) {
    struct sctpstat statistics;

    if (!veil_started)
        return 0;
    usrsctp_get_stat(&statistics);
    return statistics.sctps_currestab;
}
