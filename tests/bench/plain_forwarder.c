/* A plain UDP forwarder, the control of delay runs: each RTP packet of the publisher goes unchanged to every subscriber by
 * sendmmsg. No cipher, no rewriting, no pacing, no repair; what it adds is what the kernel and the machine add.
 *
 * Both ends find it by ICE checks, which it answers without looking at their integrity: a USERNAME that begins with "publisher:"
 * makes an address the publisher's, any other a subscriber's. RTCP goes nowhere.
 *
 * usage: plain_forwarder IP PORT PASSWORD      PORT 0: any; the port bound is printed. Ends with its standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_SUBSCRIBERS = 4096, BATCH = 64, PACKET = 1600, STUN_HEAD = 20, REQUEST = 0x0001, SUCCESS = 0x0101,
       USERNAME = 0x0006, INTEGRITY = 0x0008, XOR_MAPPED = 0x0020, SHA1_BYTES = 20 };
static const uint8_t cookie[4] = {0x21, 0x12, 0xa4, 0x42};
static const char PUBLISHER[] = "publisher:";

static struct sockaddr_in subscriber[MAX_SUBSCRIBERS], publisher;
static int subscribers, fd;
static const char *password;

static int is_same(const struct sockaddr_in *a, const struct sockaddr_in *b) {
    return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
}

static uint16_t get_u16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static void put_u16(uint8_t *p, unsigned value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static int is_publisher(const uint8_t *request, int length) {
    int name = sizeof PUBLISHER - 1;
    for (int at = STUN_HEAD; at + 4 + name <= length; at += 4 + ((get_u16(request + at + 2) + 3) & ~3))
        if (get_u16(request + at) == USERNAME) return !memcmp(request + at + 4, PUBLISHER, (size_t)name);
    return 0;
}

static void note(const struct sockaddr_in *from, int is_pub) {
    if (is_pub) {
        publisher = *from;
        return;
    }
    for (int i = 0; i < subscribers; i++)
        if (is_same(&subscriber[i], from)) return;
    if (subscribers < MAX_SUBSCRIBERS) subscriber[subscribers++] = *from;
}

/* RFC 8489: the asker's address under the cookie (section 14.2), then HMAC-SHA1 of all before it (section 14.5). */
static void answer(const uint8_t *request, const struct sockaddr_in *from) {
    uint8_t out[STUN_HEAD + 12 + 4 + SHA1_BYTES] = {0};
    unsigned digest_bytes = SHA1_BYTES;
    put_u16(out, SUCCESS);
    put_u16(out + 2, 12 + 4 + SHA1_BYTES);
    memcpy(out + 4, request + 4, 16);
    put_u16(out + 20, XOR_MAPPED);
    put_u16(out + 22, 8);
    out[25] = 1;
    memcpy(out + 26, &from->sin_port, 2);
    memcpy(out + 28, &from->sin_addr, 4);
    for (int i = 0; i < 2; i++) out[26 + i] ^= cookie[i];
    for (int i = 0; i < 4; i++) out[28 + i] ^= cookie[i];
    put_u16(out + 32, INTEGRITY);
    put_u16(out + 34, SHA1_BYTES);
    HMAC(EVP_sha1(), password, (int)strlen(password), out, 32, out + 36, &digest_bytes);
    sendto(fd, out, sizeof out, 0, (const struct sockaddr *)from, sizeof *from);
}

static void fan_out(uint8_t *packet, size_t length) {
    static struct mmsghdr messages[BATCH];
    struct iovec whole = {packet, length};
    for (int first = 0; first < subscribers; first += BATCH) {
        int count = subscribers - first < BATCH ? subscribers - first : BATCH;
        for (int i = 0; i < count; i++)
            messages[i].msg_hdr = (struct msghdr){.msg_name = &subscriber[first + i], .msg_namelen = sizeof publisher,
                                                  .msg_iov = &whole, .msg_iovlen = 1};
        for (int sent = 0; sent < count;) {
            int done = sendmmsg(fd, messages + sent, (unsigned)(count - sent), 0);
            sent += done > 0 ? done : 1; /* one that the kernel refuses is lost, as on any network */
        }
    }
}

static void take(uint8_t *packet, int length, const struct sockaddr_in *from) {
    if (length >= STUN_HEAD && packet[0] < 4 && get_u16(packet) == REQUEST) {
        note(from, is_publisher(packet, length));
        answer(packet, from);
    } else if (length > 12 && packet[0] >= 128 && (packet[1] < 192 || packet[1] > 223) && is_same(from, &publisher)) {
        fan_out(packet, (size_t)length);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: plain_forwarder IP PORT PASSWORD\n");
        return 2;
    }
    password = argv[3];
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    socklen_t own_bytes = sizeof own;
    int buffer_bytes = 8 << 20;
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof buffer_bytes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_bytes, sizeof buffer_bytes);
    if (inet_pton(AF_INET, argv[1], &own.sin_addr) != 1 || bind(fd, (struct sockaddr *)&own, sizeof own)) {
        perror("plain_forwarder");
        return 1;
    }
    getsockname(fd, (struct sockaddr *)&own, &own_bytes);
    printf("%d\n", ntohs(own.sin_port));
    fflush(stdout);

    static uint8_t packets[BATCH][PACKET];
    static struct sockaddr_in from[BATCH];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    struct pollfd watched[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    for (;;) {
        if (poll(watched, 2, -1) > 0 && watched[1].revents) {
            char word[64];
            if (read(0, word, sizeof word) <= 0) return 0;
        }
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){packets[i], PACKET};
            messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &parts[i],
                                                  .msg_iovlen = 1};
        }
        int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < count; i++) take(packets[i], (int)messages[i].msg_len, &from[i]);
    }
}
