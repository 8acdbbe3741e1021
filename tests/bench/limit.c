/* The raw limit of one core: what protecting and sending costs when a relay does nothing else.
 *
 * Per subscriber, AES-128-GCM of one frame's packets (ipsec-mb, single call, source to destination) and one send of the
 * frame: a GSO message, or one sendmmsg. CPU time of this thread per packet. Receivers are emptied between the timed parts
 * ("self"), so nobody is woken and nothing is dropped; on loopback the receive path is the sender's cost, here as in a relay.
 *
 * With a pause, frames come as a camera's do: the core has slept and its caches hold other things. That costs more per packet,
 * and most with few subscribers; a relay under the same load pays it too.
 *
 * usage: limit gso|sendmmsg SUBSCRIBERS PACKETS_PER_FRAME PACKET_BYTES ROUNDS [PAUSE_US]
 *        PACKET_BYTES: plain RTP, header included. PAUSE_US: sleep before each frame, 0 = none
 * prints one line: CPU-us per packet of each round
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <intel-ipsec-mb.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 12, TAG = 16, MAX_SUBSCRIBERS = 4096, MAX_FRAME = 50, MAX_PACKET = 1300, ROUND_PACKETS = 60000, PACED_FRAMES = 30 };

static int receiver[MAX_SUBSCRIBERS];
static struct sockaddr_in destination[MAX_SUBSCRIBERS];
static struct gcm_key_data *keys;
static uint8_t plain[MAX_FRAME][MAX_PACKET];
static uint8_t wire[MAX_FRAME * (MAX_PACKET + TAG)] __attribute__((aligned(64)));

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int open_socket(struct sockaddr_in *bound) {
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), bytes = 4 << 20;
    socklen_t length = sizeof *bound;
    if (fd < 0 || bind(fd, (struct sockaddr *)&loopback, sizeof loopback)) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    getsockname(fd, (struct sockaddr *)bound, &length);
    return fd;
}

/* The initialisation vector of a packet: unique by subscriber's key and packet number (RFC 7714 section 8.1 in spirit). */
static void make_iv(uint8_t iv[HEADER], uint64_t number) {
    memset(iv, 0, HEADER);
    memcpy(iv + 4, &number, sizeof number);
}

static void protect(IMB_MGR *mgr, int subscriber, int packet, int bytes, uint64_t number, uint8_t *out) {
    struct gcm_context_data context;
    uint8_t iv[HEADER];
    uint16_t seq = htons((uint16_t)number);
    uint32_t ssrc = htonl((uint32_t)subscriber);
    memcpy(out, plain[packet], HEADER);
    memcpy(out + 2, &seq, sizeof seq);
    memcpy(out + 8, &ssrc, sizeof ssrc);
    make_iv(iv, number);
    IMB_AES128_GCM_ENC(mgr, &keys[subscriber], &context, out + HEADER, plain[packet] + HEADER, (uint64_t)(bytes - HEADER), iv,
                       out, HEADER, out + bytes, TAG);
}

static void send_frame(int fd, int subscriber, int frame, int wire_bytes, int is_gso) {
    struct mmsghdr messages[MAX_FRAME];
    struct iovec parts[MAX_FRAME];
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(uint16_t))]; } control;
    int count = is_gso ? 1 : frame;
    memset(messages, 0, sizeof messages[0] * (size_t)count);
    for (int i = 0; i < count; i++) {
        struct msghdr *message = &messages[i].msg_hdr;
        parts[i] = (struct iovec){wire + i * wire_bytes, (size_t)(is_gso ? frame * wire_bytes : wire_bytes)};
        message->msg_name = &destination[subscriber];
        message->msg_namelen = sizeof destination[subscriber];
        message->msg_iov = &parts[i];
        message->msg_iovlen = 1;
    }
    if (!is_gso) {
        if (sendmmsg(fd, messages, (unsigned)count, 0) != count) fail("sendmmsg");
        return;
    }
    if (frame > 1) {
        uint16_t segment = (uint16_t)wire_bytes;
        control.header = (struct cmsghdr){CMSG_LEN(sizeof segment), SOL_UDP, UDP_SEGMENT};
        memcpy(CMSG_DATA(&control.header), &segment, sizeof segment);
        messages[0].msg_hdr.msg_control = &control;
        messages[0].msg_hdr.msg_controllen = sizeof control.space;
    }
    if (sendmsg(fd, &messages[0].msg_hdr, 0) < 0) fail("sendmsg");
}

static long drain(int subscribers) {
    static uint8_t sink[64][MAX_PACKET + TAG];
    static struct mmsghdr messages[64];
    static struct iovec parts[64];
    long total = 0;
    for (int i = 0; i < 64; i++) {
        parts[i] = (struct iovec){sink[i], sizeof sink[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    for (int s = 0; s < subscribers; s++) {
        int got;
        while ((got = recvmmsg(receiver[s], messages, 64, MSG_DONTWAIT, NULL)) > 0) total += got;
    }
    return total;
}

/* What was measured must be what a receiver can read. */
static void check_cipher(IMB_MGR *mgr, int bytes) {
    struct gcm_context_data context;
    uint8_t iv[HEADER], opened[MAX_PACKET], tag[TAG];
    protect(mgr, 0, 0, bytes, 1, wire);
    make_iv(iv, 1);
    IMB_AES128_GCM_DEC(mgr, &keys[0], &context, opened, wire + HEADER, (uint64_t)(bytes - HEADER), iv, wire, HEADER, tag, TAG);
    if (memcmp(opened, plain[0] + HEADER, (size_t)(bytes - HEADER)) || memcmp(tag, wire + bytes, TAG)) {
        fprintf(stderr, "limit: the packet does not open\n");
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "usage: limit gso|sendmmsg SUBSCRIBERS PACKETS_PER_FRAME PACKET_BYTES ROUNDS [PAUSE_US]\n");
        return 2;
    }
    int is_gso = !strcmp(argv[1], "gso"), subscribers = atoi(argv[2]), frame = atoi(argv[3]), bytes = atoi(argv[4]);
    int rounds = atoi(argv[5]), wire_bytes = bytes + TAG;
    useconds_t pause_us = argc == 7 ? (useconds_t)atoi(argv[6]) : 0;
    if (subscribers < 1 || subscribers > MAX_SUBSCRIBERS || frame < 1 || frame > MAX_FRAME || bytes <= HEADER ||
        bytes > MAX_PACKET || (is_gso && frame * wire_bytes > 65507)) {
        fprintf(stderr, "limit: out of range\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    IMB_MGR *mgr = alloc_mb_mgr(0);
    if (!mgr || posix_memalign((void **)&keys, 64, sizeof *keys * (size_t)subscribers)) fail("memory");
    init_mb_mgr_auto(mgr, NULL);
    for (int s = 0; s < subscribers; s++) {
        uint8_t key[16];
        memset(key, s + 1, sizeof key);
        memcpy(key, &s, sizeof s);
        IMB_AES128_GCM_PRE(mgr, key, &keys[s]);
        receiver[s] = open_socket(&destination[s]);
    }
    for (int i = 0; i < MAX_FRAME; i++)
        for (int j = 0; j < MAX_PACKET; j++) plain[i][j] = (uint8_t)(i + j);
    check_cipher(mgr, bytes);

    struct sockaddr_in own;
    int fd = open_socket(&own);
    uint64_t number = 2;
    for (int round = -1; round < rounds; round++) { /* the first one warms caches and is not printed */
        double spent_us = 0;
        long sent = 0, wanted = pause_us ? (long)subscribers * frame * PACED_FRAMES : ROUND_PACKETS;
        while (sent < wanted) {
            if (pause_us) usleep(pause_us);
            double before_us = cpu_us();
            for (int s = 0; s < subscribers; s++) {
                for (int k = 0; k < frame; k++) protect(mgr, s, k, bytes, number++, wire + k * wire_bytes);
                send_frame(fd, s, frame, wire_bytes, is_gso);
            }
            spent_us += cpu_us() - before_us;
            sent += (long)subscribers * frame;
            if (drain(subscribers) != (long)subscribers * frame) {
                fprintf(stderr, "limit: packets were dropped\n");
                return 1;
            }
        }
        if (round >= 0) printf("%.4f ", spent_us / (double)sent);
    }
    printf("\n");
    return 0;
}
