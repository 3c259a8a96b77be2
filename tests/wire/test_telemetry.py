"""Windows on the wire: packed and read again, bounded, and the golden files that never change."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.wire import telemetry
from edgeflow_agent.wire.documents import Stored
from edgeflow_agent.wire.sketches import CategoricalRecord, NumericRecord, Sparse

GOLDEN = Path(__file__).parent / "golden"
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_SPARSE = Sparse(gap=(1, 3), count=(2, 5))
_NUMERIC = NumericRecord(
    name="age", n=12, missing=2, inf=3, min=-1.5, max=8.5, mean=2.25, m2=3.5, inner_mean=2.5, inner_m2=4.5,
    below=1, below_excess=0.5, above=2, above_excess=1.5, fine=_SPARSE, quantiles=_SPARSE, values=_SPARSE,
    points=_SPARSE,
)  # fmt: skip
_CATEGORICAL = CategoricalRecord(name="city", n=9, missing=1, other=1, counts=_SPARSE)
_WINDOW = telemetry.TelemetryWindow(
    boot="b1",
    seq=7,
    start=AT,
    end=AT,
    digest="ab" * 32,
    model="iris",
    version="3",
    deployment="d1",
    execution="e1",
    seconds=60.5,
    requests=telemetry.Requests(ok=1, bad_input=2, rejected=3, no_model=4, deadline=5, error=6),
    latency=telemetry.Latency(counts=(1,) * 16, sum_s=0.25),
    resources=telemetry.Resources(
        cpu_ratio=0.5, rss_bytes=1, load_ratio=0.25, memory_free_bytes=2, disk_free_bytes=3,
        disk_free_ratio=0.75, temperature_c=41.5, queue_peak=8,
    ),
    swaps=1,
    dropped=2,
    pending=3,
    baseline="cd" * 32,
    is_learned=True,
    observed=4,
    unobserved=5,
    left_out=6,
    features=(_NUMERIC, _CATEGORICAL),
)  # fmt: skip
EXAMPLES: dict[str, msgspec.Struct] = {
    "telemetry_window": _WINDOW,
    "telemetry_request": telemetry.TelemetryRequest(windows=(b"abc",)),
    "telemetry_response": telemetry.TelemetryResponse(
        stored=(Stored(boot="b1", seqs=(1, 2)),), refused={"3": "too_large"}
    ),
    "baseline_upload": telemetry.BaselineUpload(digest="ab" * 32, baseline=b"{}"),
}
names = pytest.mark.parametrize("name", sorted(EXAMPLES))


@names
def test_the_examples_leave_no_field_at_its_default(name: str) -> None:
    written = msgspec.json.decode(msgspec.json.encode(EXAMPLES[name]))
    assert set(written) == set(EXAMPLES[name].__struct_fields__)


@names
def test_the_golden_file_is_read_as_it_always_was(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    assert path.is_file(), msgspec.json.encode(EXAMPLES[name]).decode()
    assert msgspec.json.decode(path.read_bytes(), type=type(EXAMPLES[name])) == EXAMPLES[name]
    assert msgspec.json.decode(msgspec.json.encode(EXAMPLES[name])) == msgspec.json.decode(path.read_bytes())


@names
def test_unknown_fields_are_ignored(name: str) -> None:
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(EXAMPLES[name]))
    more = msgspec.json.encode(written | {"of_a_later_release": 1})
    assert msgspec.json.decode(more, type=type(EXAMPLES[name])) == EXAMPLES[name]


def test_what_was_packed_is_unpacked() -> None:
    assert telemetry.unpack(telemetry.pack(_WINDOW)) == _WINDOW
    assert _WINDOW.requests.total == 21
    assert _WINDOW.requests.failed == 18


@given(st.binary(max_size=200) | st.binary(max_size=200).map(zlib.compress))
def test_whatever_comes_is_refused_and_harms_nobody(data: bytes) -> None:
    with pytest.raises(errors.ContractError):
        telemetry.unpack(data)


def test_the_limits_hold() -> None:
    bomb = zlib.compress(b" " * (telemetry.MAX_UNPACKED_BYTES + 1))
    with pytest.raises(errors.ContractError, match="unpacked") as caught:
        telemetry.unpack(bomb)
    assert caught.value.reason == "too_large"
    with pytest.raises(errors.ContractError, match="over the limit") as caught:
        telemetry.unpack(b"x" * (telemetry.MAX_WINDOW_BYTES + 1))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("wrong", ["NaN", "-1", '"1"', "1e400", "null"])
def test_a_count_is_a_number_from_zero(wrong: str) -> None:
    text = f'{{"boot":"b","seq":{wrong},"start":"2026-01-02T00:00:00Z","end":"2026-01-02T00:00:00Z"}}'
    with pytest.raises(errors.ContractError):
        telemetry.unpack(zlib.compress(text.encode()))
