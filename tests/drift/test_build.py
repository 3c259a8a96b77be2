"""The baseline against NumPy and SciPy on the raw data."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from edgeflow_agent.drift import bins, columns, features
from edgeflow_agent.drift import build as baseline
from edgeflow_agent.drift.features import Described

numbers = st.lists(st.one_of(st.floats(allow_nan=True, width=64), st.integers(-5, 5)), max_size=300)


def numeric(values: Any) -> dict[str, Any]:
    return baseline.describe(Described(name="x", values=np.asarray(values, dtype=np.float64)))


def test_moments_and_quantiles_are_numpys() -> None:
    values = np.random.default_rng(1).lognormal(size=50_000)
    entry = numeric(values)
    assert entry["kind"] == "numeric"
    assert (entry["n"], entry["missing"], entry["inf"]) == (50_000, 0, 0)
    assert entry["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert entry["std"] == pytest.approx(stats.tstd(values, ddof=0), rel=1e-12)
    assert (entry["min"], entry["max"]) == (values.min(), values.max())
    assert entry["quantiles"]["edges"] == pytest.approx(np.quantile(values, np.arange(257) / 256), rel=1e-15)
    assert entry["quantiles"]["counts"] == np.histogram(values, entry["quantiles"]["edges"])[0].tolist()
    assert len(entry["quantiles"]["counts"]) == 256
    assert "reference" not in entry
    assert "discrete" not in entry


@pytest.mark.parametrize("seed", range(20))
def test_fine_bins_are_numpys_histogram(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(rng.uniform(-1e3, 1e3), rng.uniform(1e-3, 1e3), size=5_000)
    fine = numeric(values)["fine"]
    width = values.max() - values.min()
    assert fine["low"] == pytest.approx(values.min() - width / 4)
    assert fine["high"] == pytest.approx(values.max() + width / 4)
    dense = np.zeros(fine["bins"], dtype=int)
    dense[fine["index"]] = fine["count"]
    expected = np.histogram(values, bins=1024, range=(fine["low"], fine["high"]))[0]
    # NumPy moves values that lie on an edge within rounding; none of these do.
    assert dense.tolist() == expected.tolist()


def test_a_small_sample_is_kept_as_it_is() -> None:
    values = np.random.default_rng(2).normal(size=1000)
    assert numeric(values)["reference"] == sorted(values.tolist())
    assert "reference" not in numeric(np.append(values, 0.5))


def test_missing_and_infinite_values_are_counted_apart() -> None:
    entry = numeric([1.0, np.nan, 3.0, np.inf, -np.inf, 1e101, np.nan])
    assert (entry["n"], entry["missing"], entry["inf"]) == (7, 2, 3)
    assert (entry["mean"], entry["std"], entry["min"], entry["max"]) == (2.0, 1.0, 1.0, 3.0)
    assert entry["discrete"] == {"value": [1.0, 3.0], "count": [1, 1]}


@pytest.mark.parametrize("values", [[], [np.nan], [np.inf, np.nan]])
def test_a_column_without_a_finite_value(values: list[float]) -> None:
    entry = numeric(values)
    assert entry["n"] == len(values)
    assert "mean" not in entry
    assert "fine" not in entry


@pytest.mark.parametrize("value", [0.0, -0.0, 5.0, -3e99, 5e-324])
def test_a_constant_column(value: float) -> None:
    entry = numeric([value] * 5)
    assert entry["quantiles"] == {"edges": [value], "counts": [5]}
    assert sum(entry["fine"]["count"]) == 5
    assert entry["fine"]["low"] < value < entry["fine"]["high"]
    assert entry["std"] == 0.0
    assert math.copysign(1, entry["min"]) == (1 if value == 0 else math.copysign(1, value))


@given(numbers)
def test_counts_add_up_whatever_comes(values: list[float]) -> None:
    entry = numeric(values)
    finite = [value for value in values if math.isfinite(value) and abs(value) <= 1e100]
    assert entry["n"] == len(values)
    assert entry["n"] - entry["missing"] - entry["inf"] == len(finite)
    if not finite:
        return
    assert sum(entry["quantiles"]["counts"]) == sum(entry["fine"]["count"]) == len(finite)
    assert entry["fine"]["low"] < entry["fine"]["high"]
    assert entry["fine"]["low"] <= entry["min"] <= entry["max"] <= entry["fine"]["high"]
    assert entry["fine"]["index"] == sorted(set(entry["fine"]["index"]))
    assert all(0 <= index < 1024 for index in entry["fine"]["index"])
    edges = entry["quantiles"]["edges"]
    assert edges == sorted(set(edges))
    assert (edges[0], edges[-1]) == (entry["min"], entry["max"])
    baseline.encode(baseline.build([Described(name="x", values=np.array(values))]))


@given(
    st.lists(st.one_of(st.text(max_size=3), st.none(), st.booleans(), st.binary(max_size=2)), max_size=100)
)
def test_categories_are_a_counter(values: list[Any]) -> None:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    entry = baseline.describe(Described(name="c", values=column))
    assert entry["kind"] == "categorical"
    assert entry["missing"] == values.count(None)
    counted = dict(zip(entry["categories"]["value"], entry["categories"]["count"], strict=True))
    expected = Counter(columns.text(value) for value in values if value is not None)
    assert counted == expected
    baseline.encode(baseline.build([Described(name="c", values=column)]))


def test_categories_are_capped_and_the_rest_is_counted() -> None:
    values = [f"c{number:04d}" for number in range(300) for _ in range(1 + (number < 10))]
    entry = baseline.describe(Described(name="c", values=np.array(values)))
    assert len(entry["categories"]["value"]) == 256
    assert entry["categories"]["value"][:11] == [f"c{number:04d}" for number in range(11)]
    assert entry["other"] == 44
    assert sum(entry["categories"]["count"]) + entry["other"] == entry["n"] == 310


def test_numbers_among_objects_are_numbers() -> None:
    column = np.array([1, 2.5, None, np.nan, 10**400], dtype=object)
    entry = baseline.describe(Described(name="x", values=column))
    assert (entry["kind"], entry["missing"], entry["inf"], entry["mean"]) == ("numeric", 2, 1, 1.75)
    mixed = baseline.describe(Described(name="x", values=np.array([1, "a"], dtype=object)))
    assert mixed["kind"] == "categorical"


def test_the_same_samples_give_the_same_bytes_in_any_order() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=3_000)
    once = baseline.encode(baseline.build([Described(name="x", values=values)]))
    again = baseline.encode(baseline.build([Described(name="x", values=rng.permutation(values))]))
    assert once == again
    assert once.endswith(b"}\n")
    # Another hash means other bins: a new version of the format.
    assert (
        json.loads(once)["config_sha256"]
        == "7d366f3762b6ce743cbec65feb03faea8a4a7ac672faf797a937cced364d2a73"
    )


def test_image_statistics_are_numpys_and_scipys() -> None:
    images = np.random.default_rng(4).uniform(0, 255, size=(5, 3, 8, 9)).astype(np.float32)
    scalars = features.image_statistics(images, 1)
    assert scalars["mean.1"] == pytest.approx(images[:, 1].astype(np.float64).mean(axis=(1, 2)))
    assert scalars["std.2"] == pytest.approx(images[:, 2].astype(np.float64).std(axis=(1, 2)))
    grey = images.astype(np.float64).mean(axis=1)
    for index, image in enumerate(grey):
        inner = ndimage.laplace(image)[1:-1, 1:-1]
        assert scalars["sharpness"][index] == pytest.approx(inner.var())
    turned = features.image_statistics(np.moveaxis(images, 1, 3), 3)
    assert turned.keys() == scalars.keys()
    assert all(turned[name] == pytest.approx(scalars[name]) for name in scalars)


def test_score_statistics() -> None:
    scores = np.array([[0.2, 0.7, 0.1], [0.5, 0.5, 0.0]])
    assert features.score_statistics(scores)["top"] == pytest.approx([0.7, 0.5])
    assert features.score_statistics(scores)["margin"] == pytest.approx([0.5, 0.0])


def test_a_table_is_no_feature() -> None:
    with pytest.raises(ValueError, match="one column"):
        baseline.describe(Described(name="x", values=np.zeros((2, 2))))


@given(st.lists(st.floats(-1e100, 1e100) | st.sampled_from([0.0, 0.1, 1.0]), min_size=1, max_size=40))
def test_quantiles_are_those_of_numpy(values: list[float]) -> None:
    """Bit for bit: a baseline says the same wherever it was made."""
    ordered, shares = np.sort(values), np.linspace(0, 1, 129)
    np.testing.assert_array_equal(bins.quantiles(ordered, shares), np.quantile(ordered, shares))


def test_learning_imports_no_masked_arrays() -> None:
    """They would be a twentieth of the agent's memory, and hold up requests while they are imported."""
    code = """
import sys
import numpy as np
from edgeflow_agent.drift import baseline_file
from edgeflow_agent.drift.learning import Learner
from edgeflow_agent.drift.watch import Watch

feed = {"x": np.random.default_rng(0).normal(size=(600, 3))}
outputs = {"y": np.arange(600) % 3, "p": np.full((600, 3), 0.25, np.float32)}
learner = Learner(100, columns=["a", "b", "c"], labels=["u", "v", "w"])
learner.fold(feed, outputs)
watch = Watch(baseline_file.parse(learner.baseline()), ["u", "v", "w"])
watch.fold(feed, outputs)
assert watch.close(60.0) and watch.standings
sys.exit("numpy.ma was imported" if "numpy.ma" in sys.modules else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
