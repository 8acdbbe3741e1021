"""Prometheus metrics of one relay, made from one snapshot per scrape.

The data plane counts in its own thread; a scrape asks for a copy and never reads live counters, so a slow or
hostile scraper cannot disturb media. Names end in `_total` for counters, units are in the name.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from relay.observe.watched import Snapshot, Totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _OneScrape(Collector):
    """The metrics of one moment."""

    def __init__(
        self, version: str, totals: Totals, snapshot: Snapshot, refusals: Mapping[str, int], lost_records: int
    ) -> None:
        self._version = version
        self._totals = totals
        self._snapshot = snapshot
        self._refusals = refusals
        self._lost_records = lost_records

    def collect(self) -> Iterable[Metric]:
        yield InfoMetricFamily("veil", "The relay's version.", {"version": self._version})
        for name, value, text in (
            ("rooms", self._totals.rooms, "Rooms that exist."),
            ("participants", self._totals.participants, "Participants in rooms."),
            ("publications", self._totals.publications, "Published tracks."),
            ("subscriptions", self._totals.subscriptions, "Tracks received, counted once per receiver."),
            ("videos_paused", self._totals.videos_paused, "Videos not forwarded for want of bandwidth."),
            ("videos_limited", self._totals.videos_limited, "Videos forwarded at less than asked for, for want of bandwidth."),
            ("transports", len(self._snapshot.transports), "ICE/DTLS transports of the data plane."),
        ):
            yield GaugeMetricFamily(f"veil_{name}", text, value)
        text = "Other encodings or layers chosen for a subscriber, pauses included."
        yield CounterMetricFamily("veil_video_switches", text, self._totals.video_switches)
        yield CounterMetricFamily(
            "veil_resumes", "Sessions that went on over another signalling connection.", self._totals.resumes
        )
        for name, value in self._snapshot.counters.items():
            yield CounterMetricFamily(f"veil_plane_{name}", f"Data plane: {name.replace('_', ' ')}.", value)
        dropped = CounterMetricFamily(
            "veil_plane_dropped",
            "Datagrams the data plane dropped, by reason (names of relaycore.errs).",
            labels=["reason"],
        )
        for code, value in self._snapshot.errors.items():
            dropped.add_metric([code.removeprefix("E_").lower()], value)
        yield dropped
        cost = GaugeMetricFamily(
            "veil_stage_ns_per_packet",
            "What a stage of the packet path costs per packet, over the turns sampled so far.",
            labels=["stage"],
        )
        for stage, (ns, packets) in self._snapshot.stages.items():
            cost.add_metric([stage], ns / packets if packets else 0.0)
        yield cost
        yield from self._workers()
        refused = CounterMetricFamily(
            "veil_refused", "Requests and messages refused by signalling, by reason.", labels=["reason"]
        )
        for reason, value in self._refusals.items():
            refused.add_metric([reason], value)
        yield refused
        text = "Log records that could not be written: a full disk, a closed pipe."
        yield CounterMetricFamily("veil_log_records_lost", text, self._lost_records)

    def _workers(self) -> Iterable[Metric]:
        families = (
            (GaugeMetricFamily, "transports", "ICE/DTLS transports by worker thread."),
            (GaugeMetricFamily, "predicted_load", "Load that placement expects of a worker thread, in cores."),
            (CounterMetricFamily, "rtp_received", "RTP packets received, by worker thread."),
            (CounterMetricFamily, "rtp_forwarded", "RTP packets sent to subscribers, by worker thread."),
        )
        for family, name, text in families:
            metric = family(f"veil_worker_{name}", text, labels=["worker"])
            for number, worker in enumerate(self._snapshot.workers):
                metric.add_metric([str(number)], getattr(worker, name))
            yield metric


def render(version: str, totals: Totals, snapshot: Snapshot, refusals: Mapping[str, int], lost_records: int) -> bytes:
    """Return the exposition text of one scrape, the process's own memory, descriptors and CPU time included."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_OneScrape(version, totals, snapshot, refusals, lost_records))
    return generate_latest(registry)
