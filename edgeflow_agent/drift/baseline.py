"""What a model saw in training, as docs/baseline.md describes it; `baseline_file` reads it."""

from __future__ import annotations

import hashlib
import json

import msgspec

from edgeflow_agent.drift.bins import FINE_BINS, Floats, Ints
from edgeflow_agent.wire.documents import Count, Text

FORMAT = 1
QUANTILE_BINS = 256
REFERENCE_VALUES = 1000
DISCRETE_VALUES = 20
CATEGORIES = 256
MARGIN = 0.25  # how far the fine bins go beyond the range, in parts of it
# Beyond this a reading is no measurement, and squares of it would be no numbers: it counts as infinite.
LARGEST = 1e100

CONFIG: dict[str, float] = {
    "categories": CATEGORIES,
    "discrete_values": DISCRETE_VALUES,
    "fine_bins": FINE_BINS,
    "largest": LARGEST,
    "margin": MARGIN,
    "quantile_bins": QUANTILE_BINS,
    "reference_values": REFERENCE_VALUES,
}
CONFIG_SHA256 = hashlib.sha256(json.dumps(CONFIG, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

# Means come out of sums in floating point: so far, in parts of the largest value, they may miss the range.
ROUNDING = 1e-9


class Source(msgspec.Struct, frozen=True):
    """How to compute a feature from a request: a column or a statistic of an input, or a statistic of an
    output."""

    input: Text = ""
    output: Text = ""
    column: Count | None = None
    statistic: Text = ""


class Distribution(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The finite values of a numeric feature. Arrays are read-only.

    `edges` and `counts` are the quantile bins (one edge and one count when all values are equal); `fine`
    the counts of the FINE_BINS bins from `fine_low` to `fine_high`. `values` and `value_counts` list the
    distinct values when there are at most 20; `reference` is every value, sorted, when there are at most
    1,000, and `points` the distinct ones among them. Each of these is empty when the baseline has none.
    """

    n: int
    mean: float
    std: float
    min: float
    max: float
    edges: Floats
    counts: Ints
    fine_low: float
    fine_high: float
    fine: Ints
    values: Floats
    value_counts: Ints
    reference: Floats
    points: Floats


class Numeric(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A feature of numbers; `distribution` is None when no value of the baseline was finite."""

    name: str
    source: Source
    n: int
    missing: int
    inf: int
    distribution: Distribution | None


class Categorical(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A feature of words: the commonest categories, the commonest first, and how often each was seen.
    `index` finds a category's place."""

    name: str
    source: Source
    n: int
    missing: int
    categories: tuple[str, ...]
    counts: Ints
    other: int
    index: dict[str, int]


Feature = Numeric | Categorical


class Baseline(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All features; `digest` is the SHA-256 of the file in hex, which is the baseline's name."""

    digest: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those of inputs and outputs; no two have the same name."""
        return self.inputs + self.outputs
