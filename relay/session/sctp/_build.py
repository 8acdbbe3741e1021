"""Builds `relay.session.sctp._usrsctp`, the cffi binding of usrsctp (API mode: the C compiler knows the structs).

Used by setup.py through `cffi_modules`. The shim, not usrsctp, is what Python sees; see `shim.h` and `gate.h`.
"""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef("""
enum {
    VEIL_PACKET_BYTES, VEIL_RESET_STREAMS,
    VEIL_NOTHING, VEIL_MESSAGE, VEIL_UP, VEIL_LOST, VEIL_STREAMS_RESET_IN, VEIL_STREAMS_RESET_OUT,
    VEIL_STREAMS_RESET_FAILED, VEIL_SHUTDOWN, VEIL_PARTIAL_ABORTED, VEIL_OTHER,
    VEIL_RELIABLE, VEIL_MAX_RETRANSMITS, VEIL_MAX_LIFETIME,
    ...
};
typedef struct {
    uint32_t dropped;
    uint32_t refused;
    uint32_t stripped;
    ...;
} veil_association;
typedef struct {
    int kind;
    int eor;
    int unordered;
    uint32_t ppid;
    uint16_t stream;
    uint16_t state;
    uint16_t error;
    uint16_t stream_count;
    uint16_t outbound_streams;
    uint16_t inbound_streams;
    size_t length;
    uint16_t streams[...];
    ...;
} veil_item;
void veil_sctp_start(void);
void veil_sctp_advance(uint32_t elapsed_ms);
veil_association *veil_sctp_open(uint16_t local_port, uint16_t remote_port, uint32_t mtu_bytes,
                                 uint32_t max_message_bytes, uint16_t streams);
int veil_sctp_input(veil_association *, const uint8_t *packet, size_t length);
size_t veil_sctp_next_packet(veil_association *, uint8_t *out);
void veil_sctp_read(veil_association *, uint8_t *buffer, size_t capacity, veil_item *item);
int veil_sctp_send(veil_association *, uint16_t stream, uint32_t ppid, int unordered, int policy,
                   uint32_t policy_value, const uint8_t *data, size_t length);
int veil_sctp_reset(veil_association *, const uint16_t *streams, uint16_t count);
uint32_t veil_sctp_outstanding(veil_association *);
void veil_sctp_close(veil_association *);
void veil_sctp_free(veil_association *);
uint32_t veil_sctp_live(void);
size_t veil_gate(veil_association *, const uint8_t *packet, size_t length, uint8_t *out);
uint32_t usrsctp_crc32c(void *, size_t);
""")
ffibuilder.set_source(
    "relay.session.sctp._usrsctp",
    (HERE / "shim.h").read_text() + (HERE / "gate.h").read_text(),
    libraries=["usrsctp"],
    extra_compile_args=["-O2", "-g", "-std=gnu11", "-Wall", "-Wextra"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
