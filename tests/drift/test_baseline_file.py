"""What is written is read as it was, and what nobody wrote is refused in a sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent import errors
from edgeflow_agent.drift import baseline, baseline_file
from edgeflow_agent.drift import build as written
from edgeflow_agent.drift.baseline import Source
from edgeflow_agent.drift.features import Described
from tests.drift.conftest import categorical, content, numeric

FILE = json.loads(
    content(
        x=np.append(np.random.default_rng(0).normal(size=500), [np.nan, np.inf]),
        d=np.repeat([1.0, 2.0, 5.0], [4, 2, 1]),
        w=np.array(["a", "b", "a", None], dtype=object),
        e=np.array([np.nan, np.nan]),
    )
)
X, D, W, E = range(4)


def test_numbers_are_read() -> None:
    values = np.random.default_rng(1).normal(size=5_000)
    feature = numeric(np.append(values, [np.nan, np.inf, -1e200]))
    assert (feature.n, feature.missing, feature.inf) == (5_003, 1, 2)
    seen = feature.distribution
    assert seen is not None
    assert (seen.n, seen.min, seen.max) == (5_000, values.min(), values.max())
    assert seen.mean == pytest.approx(values.mean())
    assert seen.std == pytest.approx(values.std())
    assert seen.counts.tolist() == np.histogram(values, seen.edges)[0].tolist()
    assert seen.fine.shape == (1024,)
    assert seen.fine.tolist() == np.histogram(values, 1024, (seen.fine_low, seen.fine_high))[0].tolist()
    assert seen.values.size == seen.reference.size == seen.points.size == 0
    assert not seen.fine.flags.writeable


def test_small_and_discrete_samples_are_read() -> None:
    seen = numeric([3, 1, 1, 2, 2, 2]).distribution
    assert seen is not None
    assert seen.values.tolist() == seen.points.tolist() == [1, 2, 3]
    assert seen.value_counts.tolist() == [2, 3, 1]
    assert seen.reference.tolist() == [1, 1, 2, 2, 2, 3]
    assert numeric([np.nan]).distribution is None


def test_words_are_read() -> None:
    feature = categorical(["b", "a", "b", None, True])
    assert feature.categories == ("b", "a", "true")
    assert feature.counts.tolist() == [2, 1, 1]
    assert (feature.n, feature.missing, feature.other) == (5, 1, 0)
    assert feature.index == {"b": 0, "a": 1, "true": 2}
    many = categorical([f"{index:03}" for index in range(300)])
    assert (len(many.categories), many.other) == (256, 44)


def test_where_a_feature_comes_from() -> None:
    data = content(x=[1.0])
    parsed = baseline_file.parse(data)
    assert parsed.digest == hashlib.sha256(data).hexdigest()
    top = Described("y.top", [0.5], Source(output="y", statistic="top"))
    column = Described("age", [0.5], Source(input="x", column=3))
    both = baseline_file.parse(written.encode(written.build([column], [top])))
    assert both.inputs[0].source == baseline.Source(input="x", column=3)
    assert both.outputs[0].source == baseline.Source(output="y", statistic="top")
    assert [feature.name for feature in both.features] == ["age", "y.top"]


floats = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.one_of(floats, st.integers(-3, 3).map(float)), max_size=60), st.integers(1, 30))
def test_all_that_is_written_is_read(values: list[float], times: int) -> None:
    feature = numeric(values * times)
    assert feature.n == len(values) * times


def change(*path: Any, to: Any) -> dict[str, Any]:
    file = copy.deepcopy(FILE)
    at = file
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = to
    return file


HOSTILE = [
    (change("format", to=2), "format 2"),
    (change("format", to="1"), "cannot be read"),
    (change("config", "fine_bins", to=512), "config"),
    (change("config_sha256", to="0" * 64), "config"),
    (change("inputs", to=FILE["inputs"] * 2), "two features 'x'"),
    (change("outputs", to=[FILE["inputs"][D]]), "two features 'd'"),
    (change("inputs", to=[FILE["inputs"][E]] * 4097), "cannot be read"),
    (change("inputs", X, "kind", to="text"), "cannot be read"),
    (change("inputs", X, "n", to=-1), "cannot be read"),
    (change("inputs", X, "n", to=1), "more missing"),
    (change("inputs", X, "n", to=2**54), "cannot be read"),
    (change("inputs", X, "n", to=503), "500 reference values of 501"),
    (change("inputs", X, "mean", to=None), "left out"),
    (change("inputs", X, "mean", to=1e9), "mean is not between"),
    (change("inputs", X, "std", to=-1.0), "std"),
    (change("inputs", X, "std", to=1e6), "std"),
    (change("inputs", X, "min", to=99.0), "out of order"),
    (change("inputs", X, "max", to=1e101), "out of order"),
    (change("inputs", X, "max", to=99.0), "edges do not reach"),
    (change("inputs", X, "quantiles", "edges", 3, to=-99.0), "not sorted"),
    (change("inputs", X, "quantiles", "edges", to=[0.0] * 258), "cannot be read"),
    (change("inputs", X, "quantiles", "edges", to=[]), "cannot be read"),
    (change("inputs", X, "quantiles", "counts", to=[500]), "1 quantile counts, not 256"),
    (change("inputs", X, "fine", "bins", to=512), "fine bins are not"),
    (change("inputs", X, "fine", "high", to=FILE["inputs"][X]["fine"]["low"]), "fine bins are not"),
    (change("inputs", X, "fine", "low", to=0.0), "do not reach"),
    (change("inputs", X, "fine", "index", 0, to=5000), "not sorted"),
    (change("inputs", X, "fine", "index", -1, to=1024), "beyond 1024"),
    (change("inputs", X, "fine", "index", to=[1]), "another number"),
    (change("inputs", X, "fine", "count", 0, to=7), "fine counts make"),
    (change("inputs", X, "reference", to=[1.0]), "1 reference values of 500"),
    (change("inputs", X, "reference", to=FILE["inputs"][X]["reference"][::-1]), "not sorted"),
    (change("inputs", X, "reference", 0, to=-99.0), "miss min or max"),
    (change("inputs", D, "discrete", "value", to=[1.0, 1.0, 5.0]), "not sorted and distinct"),
    (change("inputs", D, "discrete", "value", to=[1.0, 2.0, 4.0]), "do not reach"),
    (change("inputs", D, "discrete", "count", to=[4, 3]), "2 discrete counts"),
    (change("inputs", W, "categories", "value", to=["a", "a"]), "twice"),
    (change("inputs", W, "categories", "count", to=[2, 2]), "category counts make 4"),
    (change("inputs", W, "other", to=4), "more other values"),
    (change("inputs", W, "missing", to=5), "more missing values"),
    (change("inputs", E, "mean", to=0.0), "none that is finite"),
]


@pytest.mark.parametrize("file, problem", HOSTILE, ids=[problem for _, problem in HOSTILE])
def test_what_is_wrong_is_said(file: dict[str, Any], problem: str) -> None:
    with pytest.raises(errors.ContractError, match="the baseline is refused: ") as error:
        baseline_file.parse(json.dumps(file).encode())
    assert problem in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"format": 1}', b'{"format": NaN}']
)
def test_no_baseline_at_all(data: bytes) -> None:
    with pytest.raises(errors.ContractError, match="the baseline is refused"):
        baseline_file.parse(data)


def test_a_huge_file_is_not_looked_at() -> None:
    with pytest.raises(errors.ContractError, match="bytes") as error:
        baseline_file.parse(b" " * (baseline_file.MAX_BYTES + 1))
    assert error.value.reason == "too_large"


PLACES = [
    path
    for entry in range(4)
    for path in [
        *((entry, key) for key in FILE["inputs"][entry]),
        *((entry, "fine", key) for key in FILE["inputs"][entry].get("fine", ())),
        *((entry, "quantiles", key) for key in FILE["inputs"][entry].get("quantiles", ())),
        *((entry, "discrete", key) for key in FILE["inputs"][entry].get("discrete", ())),
    ]
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(PLACES), anything)
def test_whatever_stands_there_nothing_breaks(path: tuple[Any, ...], value: Any) -> None:
    file = change("inputs", *path, to=value)
    try:
        parsed = baseline_file.parse(msgspec.json.encode(file))
    except errors.ContractError:
        return
    for feature in parsed.features:
        assert math.isfinite(feature.n)
