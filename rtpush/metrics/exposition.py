"""Samples as Prometheus reads them: its text format, or OpenMetrics where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from rtpush.metrics.samples import Sample, Samples
from rtpush.metrics.table import METRICS, WORKER, Kind, Metric
from rtpush.registry.counts import BOUNDS

__all__ = ["expose"]

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_BOUNDS = [*map(str, BOUNDS), "+Inf"]


def expose(workers: Mapping[str, Samples], accept: str) -> tuple[bytes, str]:
    """
    Return samples as text, and its content type.

    :param workers: The samples of each worker, by its name; an empty name for all together, without that label.
    :param accept: What is understood: the header field ``Accept``.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Collected(workers)), content_type


class _Collected(Collector):
    """Gives the library what it asks its own objects for, of which we have none."""

    def __init__(self, workers: Mapping[str, Samples]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Family]:
        """Yield all metrics."""
        of_workers = "" not in self._workers
        for metric in METRICS:
            family = _family(metric, [*metric.labels, *([WORKER] if of_workers else [])])
            for worker, samples in self._workers.items():
                for sample in samples.get(metric.name, ()):
                    _add(family, sample, [*sample.labels, *([worker] if of_workers else [])])
            yield family


def _family(metric: Metric, labels: list[str]) -> Family:
    if metric.kind is Kind.COUNTER:
        return CounterMetricFamily(metric.name, metric.doc, labels=labels, unit=metric.unit)
    if metric.kind is Kind.GAUGE:
        return GaugeMetricFamily(metric.name, metric.doc, labels=labels, unit=metric.unit)
    return HistogramMetricFamily(metric.name, metric.doc, labels=labels, unit=metric.unit)


def _add(family: Family, sample: Sample, labels: list[str]) -> None:
    if isinstance(family, HistogramMetricFamily):
        buckets = list(zip(_BOUNDS, accumulate(sample.buckets), strict=True))
        family.add_metric(labels, buckets, sample.value)
    else:
        family.add_metric(labels, sample.value)
