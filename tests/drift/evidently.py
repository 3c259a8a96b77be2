"""Evidently's statistics over raw samples, written anew from its published formulas: the oracle.

Compared once with `evidently==0.7.21` itself over 15 cases: equal but for the last digit in three numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import spatial, stats

Floats = npt.NDArray[np.float64]


def shares(reference: Any, current: Any) -> tuple[Floats, Floats]:
    """The shares per bin, zeros as they are. Words, and numbers of up to 20 values, have a bin each."""
    reference, current = _clean(reference), _clean(current)
    if reference.dtype.kind == "f" and np.unique(reference).size > 20:
        edges = np.histogram_bin_edges(np.concatenate((reference, current)), bins="sturges")
        counts = np.histogram(reference, edges)[0], np.histogram(current, edges)[0]
    else:
        keys = sorted({*reference.tolist(), *current.tolist()})
        counts = tuple(np.array([(side == key).sum() for key in keys]) for side in (reference, current))
    return counts[0] / len(reference), counts[1] / len(current)


def psi(reference: Any, current: Any) -> float:
    one, two = (_fill(side) for side in shares(reference, current))
    return float(np.sum((one - two) * np.log(one / two)))


def kl_div(reference: Any, current: Any) -> float:
    return float(stats.entropy(*(_fill(side) for side in shares(reference, current))))


def jensenshannon(reference: Any, current: Any) -> float:
    return float(spatial.distance.jensenshannon(*shares(reference, current)))


def wasserstein(reference: Any, current: Any) -> float:
    reference, current = _clean(reference), _clean(current)
    return float(stats.wasserstein_distance(reference, current) / max(np.std(reference), 0.001))


def ks(reference: Any, current: Any) -> tuple[float, float]:
    result = stats.ks_2samp(_clean(reference), _clean(current))
    return float(result.statistic), float(result.pvalue)


def chisquare(reference: Any, current: Any) -> float:
    reference, current = _clean(reference), _clean(current)
    keys = sorted({*reference.tolist(), *current.tolist()})
    expected, found = (np.array([(side == key).sum() for key in keys]) for side in (reference, current))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(stats.chisquare(found, expected * (len(current) / len(reference)))[1])


def _clean(values: Any) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind in "fiu":
        array = array.astype(np.float64)
        return array[np.isfinite(array)]
    return np.array([value for value in array.tolist() if value is not None], dtype=object)


def _fill(side: Floats) -> Floats:
    smallest = side[side != 0].min()
    return np.where(side == 0, smallest / 10**6 if smallest <= 0.0001 else 0.0001, side)
