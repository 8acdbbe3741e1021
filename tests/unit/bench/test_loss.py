"""The packet filter loses its share of what arrives at the sockets it was meant for, and of nothing else."""

from __future__ import annotations

import socket

import pytest

from tests.bench.loss import lose

COUNT = 4000


def delivered(receiver: socket.socket) -> int:
    receiver.setblocking(False)
    count = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(receiver.getsockname())
        for _ in range(COUNT):
            sender.send(b"packet")
            try:
                count += receiver.recv(16) == b"packet"
            except BlockingIOError:
                continue
    return count


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.01, 15, 75), (0.5, 1800, 2200), (1.0, COUNT - 1, COUNT)])
def test_a_filter_loses_its_share(share, least, most):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        for bound in (one, other):
            bound.bind(("127.0.0.1", 0))
        assert lose({one.getsockname()[1]}, share) == 1
        assert least <= COUNT - delivered(one) <= most
        assert delivered(other) == COUNT
