"""Every number that compares a window with its baseline.

A name says in full which variant a number is: over which bins, in which unit, with or without the readings
that are absurd. `winsorised` moves each value into the range of the fine bins (the baseline's range and a
quarter of it on both sides), so one broken reading weighs no more than any other. `sturges` is Evidently's
choice of bins, rebuilt from counts; `values` and `categories` have a bin for each value, as Evidently has.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from edgeflow_agent.drift.bins import Floats

Bools = npt.NDArray[np.bool_]


class Statistic(enum.StrEnum):
    """A way to compare. The words are stored and sent, and never change their meaning."""

    # Of numbers. Shifts are in standard deviations of the baseline, those at least 0.001 as in Evidently.
    MEAN_SHIFT = "mean_shift"
    MEAN_SHIFT_WINSORISED = "mean_shift_winsorised"
    STD_RATIO = "std_ratio"
    STD_RATIO_WINSORISED = "std_ratio_winsorised"
    WASSERSTEIN_PER_STD = "wasserstein_per_std"
    WASSERSTEIN_PER_STD_WINSORISED = "wasserstein_per_std_winsorised"
    KS_DISTANCE = "ks_distance"
    PSI_STURGES = "psi_sturges"
    KL_NAT_STURGES = "kl_nat_sturges"
    JS_DISTANCE_NAT_STURGES = "js_distance_nat_sturges"
    PSI_STURGES_WINSORISED = "psi_sturges_winsorised"
    KL_NAT_STURGES_WINSORISED = "kl_nat_sturges_winsorised"
    JS_DISTANCE_NAT_STURGES_WINSORISED = "js_distance_nat_sturges_winsorised"
    PSI_QUANTILES = "psi_quantiles"  # the 256 bins of the baseline, and what lies outside in the outer ones
    KL_NAT_QUANTILES = "kl_nat_quantiles"
    JS_DISTANCE_NAT_QUANTILES = "js_distance_nat_quantiles"
    # Of numbers with at most 20 values.
    PSI_VALUES = "psi_values"
    KL_NAT_VALUES = "kl_nat_values"
    JS_DISTANCE_NAT_VALUES = "js_distance_nat_values"
    TOTAL_VARIATION_VALUES = "total_variation_values"
    CHI_SQUARE_P_VALUES = "chi_square_p_values"
    # Of words.
    PSI_CATEGORIES = "psi_categories"
    KL_NAT_CATEGORIES = "kl_nat_categories"
    JS_DISTANCE_NAT_CATEGORIES = "js_distance_nat_categories"
    TOTAL_VARIATION_CATEGORIES = "total_variation_categories"
    CHI_SQUARE_P_CATEGORIES = "chi_square_p_categories"
    # Of both: bins put together until chance is small in each of them.
    PSI_GROUPS = "psi_groups"
    # Shares of the window.
    MISSING_SHARE = "missing_share"
    NON_FINITE_SHARE = "non_finite_share"
    OUT_OF_RANGE_SHARE = "out_of_range_share"  # of the finite ones: below min or above max of the baseline
    UNSEEN_SHARE = "unseen_share"  # of those present: no value or category that the baseline lists


class Measure(msgspec.Struct, frozen=True, gc=False):
    """A number; `approx` when the samples themselves could give a slightly different one."""

    value: float
    approx: bool = False


@dataclass(frozen=True, eq=False)
class Measures:
    """One statistic of many windows: NaN where a window has none, `approx` as in `Measure`."""

    values: Floats
    approx: bool | Bools = False

    def of_row(self, row: int) -> Measure | None:
        """The number of one window."""
        value = float(self.values[row])
        approx = self.approx if isinstance(self.approx, bool) else bool(self.approx[row])
        return None if math.isnan(value) else Measure(value, approx)
