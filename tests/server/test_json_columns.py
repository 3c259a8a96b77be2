"""What stands in JSON columns comes back as it was, also what the quick way cannot write."""

from __future__ import annotations

import math

from edgeflow_mlflow.db import models
from edgeflow_mlflow.services.state import State

ODD = {"lone": "\ud800", "large": 2**70, "deep": [[{"a": None}], 1.5, True], "text": "ü\u0000"}


def test_what_is_odd_comes_back(state: State) -> None:
    with state.database.write() as session:
        for name, settings in (("odd", ODD), ("nan", {"limit": math.nan, "pair": (1, 2)})):
            session.merge(
                models.DriftThresholds(
                    model_name=name,
                    model_version="1",
                    settings=settings,
                    updated_at=state.now(),
                    updated_by="me",
                )
            )
    with state.database.read() as session:
        found = {row.model_name: row.settings for row in session.query(models.DriftThresholds)}
    # What is no number is nothing in JSON, and PostgreSQL would not take it.
    assert found == {"odd": ODD, "nan": {"limit": None, "pair": [1, 2]}}
