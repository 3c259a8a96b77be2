"""What `/metrics` says, in the text format of Prometheus."""

from __future__ import annotations

import bisect
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from edgeflow_agent.drift.verdict import Status
from edgeflow_agent.inference.drift_view import DriftView
from edgeflow_agent.inference.slot import Slot
from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS as BUCKETS

STATUSES = ("ok", "bad_input", "rejected", "no_model", "deadline", "error")
_SPOOLS = {
    "edgeflow_spool_pending": ("gauge", "Reports that the server has not confirmed."),
    "edgeflow_spool_dropped_total": ("counter", "Reports that were dropped for lack of room."),
    "edgeflow_telemetry_spool_pending": ("gauge", "Windows of telemetry that the server has not confirmed."),
    "edgeflow_telemetry_spool_dropped_total": (
        "counter",
        "Windows of telemetry that were dropped for lack of room.",
    ),
}
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Counted(NamedTuple):
    """What was counted up to a moment: requests by status, answers per bucket, and their seconds."""

    requests: dict[str, int]
    buckets: tuple[int, ...]
    seconds: float

    def since(self, before: Counted) -> Counted:
        """What came in between."""
        return Counted(
            {status: count - before.requests[status] for status, count in self.requests.items()},
            tuple(now - then for now, then in zip(self.buckets, before.buckets, strict=True)),
            max(self.seconds - before.seconds, 0.0),
        )


class Metrics:
    """Counters of the inference requests. Written by the event loop alone."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys(STATUSES, 0)
        self.active = 0
        self.peak = 0  # the most of them at once, until somebody sets it back
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0
        self._cpu = (time.process_time(), time.monotonic())

    def answered(self, status: str, seconds: float) -> None:
        """Count one answer."""
        self.requests[status] += 1
        self._counts[bisect.bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def counted(self) -> Counted:
        """What was counted up to now; may be called from any thread."""
        return Counted(dict(self.requests), tuple(self._counts), self._sum)

    def render(self, slot: Slot, extra: Callable[[], Mapping[str, float]], drift: DriftView) -> str:
        """The whole page; `extra` gives further values by metric name."""
        lines: list[str] = []

        def metric(name: str, kind: str, text: str, samples: Mapping[str, float]) -> None:
            lines.append(f"# HELP {name} {text}")
            lines.append(f"# TYPE {name} {kind}")
            lines.extend(f"{name}{labels} {_number(value)}" for labels, value in samples.items())

        metric(
            "edgeflow_inference_requests_total",
            "counter",
            "Inference requests by outcome.",
            {f'{{status="{status}"}}': count for status, count in self.requests.items()},
        )
        metric(
            "edgeflow_inference_requests_active", "gauge", "Inference requests in work.", {"": self.active}
        )
        name = "edgeflow_inference_duration_seconds"
        histogram: dict[str, float] = {}
        total = 0
        for bound, count in zip((*BUCKETS, float("inf")), self._counts, strict=True):
            total += count
            histogram[f'_bucket{{le="{"+Inf" if bound == float("inf") else f"{bound:g}"}"}}'] = total
        metric(
            name,
            "histogram",
            "Time from a whole request to its answer.",
            histogram | {"_sum": self._sum, "_count": total},
        )
        metric(
            "edgeflow_inference_memory_rss_bytes", "gauge", "Resident memory of the agent.", {"": resident()}
        )
        metric(
            "edgeflow_inference_cpu_usage_ratio",
            "gauge",
            "Processor time of the agent since the last look, over the time that passed; 1 is one core.",
            {"": self._cpu_usage()},
        )
        serving = slot.current
        if serving is not None:
            labels = ",".join(
                f'{key}="{value.translate(_ESCAPES)}"'
                for key, value in (
                    ("model", serving.model.name),
                    ("version", serving.model.version),
                    ("digest", serving.digest),
                )
            )
            metric("edgeflow_model_info", "gauge", "The model that answers.", {f"{{{labels}}}": 1})
            metric(
                "edgeflow_model_load_duration_seconds",
                "gauge",
                "How long the model that answers took to load and warm up.",
                {"": serving.load_s},
            )
        metric(
            "edgeflow_model_swaps_total",
            "counter",
            "How often another model took over.",
            {"": slot.swaps},
        )
        if drift.baseline:
            metric(
                "edgeflow_drift_alarm",
                "gauge",
                "Whether a feature has drifted from its baseline in most of its newest judgements.",
                {
                    f'{{feature="{item.verdict.feature.translate(_ESCAPES)}"}}': float(item.alarm)
                    for item in drift.standings
                },
            )
            metric(
                "edgeflow_drift_features",
                "gauge",
                "Features by their newest judgement.",
                {
                    f'{{status="{status}"}}': sum(item.verdict.status == status for item in drift.standings)
                    for status in Status
                },
            )
        values = extra()
        for name, (kind, text) in _SPOOLS.items():
            metric(name, kind, text, {"": values.get(name, 0.0)})
        return "\n".join(lines) + "\n"

    def _cpu_usage(self) -> float:
        cpu, moment = self._cpu
        self._cpu = now = (time.process_time(), time.monotonic())
        return (now[0] - cpu) / max(now[1] - moment, 1e-9)


def _number(value: float) -> str:
    return repr(float(value)) if value != int(value) else str(int(value))


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
