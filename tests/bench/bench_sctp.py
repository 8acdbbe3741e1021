"""What a data channel message costs, with DTLS and all, from `send` at one end to `MessageReceived` at the other.

    pytest tests/bench/bench_sctp.py

The fan-out row is the relay's daily work: one message in, sent to many transports.
"""

import pytest

from relay.session import Certificate, DatagramReady, MessageReceived, Transport
from tests.support.session_link import MS, fingerprints


class Direct:
    """Two transports joined without delay; datagrams are handed over as fast as they come."""

    def __init__(self, certificate: Certificate) -> None:
        self.near, self.far = Transport(certificate), Transport(certificate)
        self.near.set_remote(fingerprints(certificate), "server")
        self.far.set_remote(fingerprints(certificate), "client")
        for end in (self.near, self.far):
            end.enable_sctp()
        self.channel = self.near.open_channel("_reliable")
        self.now_ns = 0
        self.settle()

    def settle(self) -> int:
        """Carry datagrams until both are quiet; returns the messages the far end received."""
        received = 0
        quiet = False
        while not quiet:
            quiet = True
            self.now_ns += MS
            for sender, receiver in ((self.near, self.far), (self.far, self.near)):
                for event in sender.poll(self.now_ns):
                    if isinstance(event, DatagramReady):
                        receiver.receive_dtls(event.data, self.now_ns)
                        quiet = False
                    elif isinstance(event, MessageReceived):
                        received += 1
        return received

    def close(self) -> None:
        self.near.close()
        self.far.close()


def report(benchmark, messages: int, size: int) -> None:
    per_second = messages / benchmark.stats.stats.mean
    benchmark.extra_info["messages_per_s"] = round(per_second)
    print(f"\n{size:>6} B: {per_second:>9,.0f} messages/s, {per_second * size * 8 / 1e6:>8,.0f} Mbit/s, both ends counted")


@pytest.mark.parametrize("size", [64, 1_000, 15_000, 64_000])
def test_one_way(benchmark, size: int) -> None:
    pair = Direct(Certificate.generate())
    payload = bytes(size)
    batch = min(200, 800_000 // size)

    def run() -> None:
        for _ in range(batch):
            pair.near.send(pair.channel, payload)
        assert pair.settle() == batch

    benchmark.pedantic(run, rounds=10, warmup_rounds=2)
    report(benchmark, batch, size)
    pair.close()


def test_fan_out_to_fifty(benchmark) -> None:
    certificate = Certificate.generate()
    pairs = [Direct(certificate) for _ in range(50)]
    payload = bytes(1_000)

    def run() -> None:
        # Only the sending half of each pair is timed; the other half acknowledges between rounds.
        for pair in pairs:
            pair.near.send(pair.channel, payload)
            sent = [event for event in pair.near.poll(pair.now_ns) if isinstance(event, DatagramReady)]
            for event in sent:
                pair.far.receive_dtls(event.data, pair.now_ns)

    def acknowledge() -> None:
        for pair in pairs:
            pair.settle()

    benchmark.pedantic(run, setup=acknowledge, rounds=20, warmup_rounds=2)
    report(benchmark, len(pairs), len(payload))
    for pair in pairs:
        pair.close()


def test_handshake(benchmark) -> None:
    certificate = Certificate.generate()

    def run() -> None:
        pair = Direct(certificate)
        assert not pair.near.handshaking
        pair.close()

    benchmark.pedantic(run, rounds=30, warmup_rounds=3)
    print(f"\n{benchmark.stats.stats.mean * 1e3:.2f} ms for both ends: DTLS, association, one channel")
