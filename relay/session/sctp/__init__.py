"""SCTP over DTLS (RFC 8261) by usrsctp: `association` is the Python face, `shim.h` and `gate.h` the C side."""
