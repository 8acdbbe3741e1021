"""Error codes of the data plane. >= 0 is success (bytes, slots, counts); each code below owns a counter in `counters`."""

cdef enum Err:
    E_OK = 0
    E_SHORT = -1            # fewer bytes than the fixed part needs
    E_VERSION = -2          # wrong protocol version bits
    E_LENGTH = -3           # an inner length runs past the end
    E_FORMAT = -4           # bytes that the grammar does not allow
    E_EXT_LEN = -5          # RTP header extension overruns
    E_PADDING = -6          # padding count is 0 or longer than the payload
    E_AUTH = -7             # authentication tag, MESSAGE-INTEGRITY or FINGERPRINT wrong
    E_REPLAY = -8           # packet index seen before
    E_TOO_OLD = -9          # index left of the replay window
    E_INDEX_REUSED = -10    # a second protect under one SRTP index was asked for
    E_KEY_EXHAUSTED = -11   # 2^48 RTP or 2^31 RTCP packets under one key
    E_NO_SPACE = -12        # output buffer, ring or slab full
    E_UNSUPPORTED = -13     # well-formed but not ours (profile, codec, method)
    E_UNKNOWN_PEER = -14    # datagram from an address nobody authenticated
    E_UNKNOWN_TRANSPORT = -15
    E_UNKNOWN_STREAM = -16  # SSRC not bound to any receiver
    E_LIMIT = -17           # bounded table full (streams, tuples, pending SSRCs)
    E_STATE = -18           # right bytes at the wrong time
    E_INVALID = -19         # argument of a command is out of range
    E_OS = -20              # a system call failed; errno is kept beside it
    E_MEMORY = -21
    E_LAST = -22

cdef const char* err_name(int code) noexcept nogil
