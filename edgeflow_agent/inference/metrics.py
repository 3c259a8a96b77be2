"""What `/metrics` says, in the text format of Prometheus."""

from __future__ import annotations

import bisect
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeflow_agent.inference.slot import Slot

BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STATUSES = ("ok", "bad_input", "rejected", "no_model", "deadline", "error")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metrics:
    """Counters of the inference requests. Written by the event loop alone."""

    def __init__(self) -> None:
        self.requests = dict.fromkeys(STATUSES, 0)
        self.active = 0
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0
        self._cpu = (time.process_time(), time.monotonic())

    def answered(self, status: str, seconds: float) -> None:
        """Count one answer."""
        self.requests[status] += 1
        self._counts[bisect.bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def render(self, slot: Slot, extra: Callable[[], Mapping[str, float]]) -> str:
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
            "edgeflow_inference_memory_rss_bytes", "gauge", "Resident memory of the agent.", {"": _resident()}
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
        values = {"edgeflow_spool_pending": 0.0, "edgeflow_spool_dropped_total": 0.0, **extra()}
        metric(
            "edgeflow_spool_pending",
            "gauge",
            "Reports that the server has not confirmed.",
            {"": values["edgeflow_spool_pending"]},
        )
        metric(
            "edgeflow_spool_dropped_total",
            "counter",
            "Reports that were dropped for lack of room.",
            {"": values["edgeflow_spool_dropped_total"]},
        )
        return "\n".join(lines) + "\n"

    def _cpu_usage(self) -> float:
        cpu, moment = self._cpu
        self._cpu = now = (time.process_time(), time.monotonic())
        return (now[0] - cpu) / max(now[1] - moment, 1e-9)


def _number(value: float) -> str:
    return repr(float(value)) if value != int(value) else str(int(value))


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
