"""Names of the data plane's error codes, and the one place where a code becomes an exception.

Below the Python edge functions return codes; `raise_for` is called by `def` functions alone. Peer bytes give WireError, a
ValueError; our own misuse gives RuntimeError, the machine's failures give MemoryError and OSError (STYLE 3.1).
"""

cdef const char* _names[22]
_names[0] = b"E_OK"
_names[1] = b"E_SHORT"
_names[2] = b"E_VERSION"
_names[3] = b"E_LENGTH"
_names[4] = b"E_FORMAT"
_names[5] = b"E_EXT_LEN"
_names[6] = b"E_PADDING"
_names[7] = b"E_AUTH"
_names[8] = b"E_REPLAY"
_names[9] = b"E_TOO_OLD"
_names[10] = b"E_INDEX_REUSED"
_names[11] = b"E_KEY_EXHAUSTED"
_names[12] = b"E_NO_SPACE"
_names[13] = b"E_UNSUPPORTED"
_names[14] = b"E_UNKNOWN_PEER"
_names[15] = b"E_UNKNOWN_TRANSPORT"
_names[16] = b"E_UNKNOWN_STREAM"
_names[17] = b"E_LIMIT"
_names[18] = b"E_STATE"
_names[19] = b"E_INVALID"
_names[20] = b"E_OS"
_names[21] = b"E_MEMORY"


cdef const char* err_name(int code) noexcept nogil:
    """Return the name of a code, "E_OK" for every success, "E_UNKNOWN" for a number nobody gave out."""
    if code >= 0:
        return _names[0]
    if code <= E_LAST:
        return b"E_UNKNOWN"
    return _names[-code]


class WireError(ValueError):
    """Bytes or arguments that a data plane function refused; `code` is the negative number from errs.pxd."""

    def __init__(self, code: int) -> None:
        super().__init__(name_of(code))
        self.code = code


def name_of(int code):
    """Return the name of a code, as the counters and logs print it."""
    return err_name(code).decode()


def raise_for(int code):
    """Return `code` when it is a success (>= 0), else raise the exception that fits it."""
    if code >= 0:
        return code
    if code == E_MEMORY:
        raise MemoryError(name_of(code))
    if code == E_OS:
        raise OSError(name_of(code))
    if code == E_INDEX_REUSED or code <= E_LAST:
        raise RuntimeError(f"{name_of(code)} ({code})")
    raise WireError(code)


# Every code by name, in the order of the enum: the metrics label their counters with it.
NAMES = {name_of(-number): -number for number in range(-E_LAST)}
