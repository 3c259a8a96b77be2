"""What every protocol makes of a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from edgeflow_agent.inference.messages import Request, Response
from edgeflow_agent.inference.slot import Serving


class Asked(msgspec.Struct, frozen=True, gc=False):
    """What to run, and how to answer with the outputs in graph order."""

    feed: Mapping[str, Any]
    answer: Callable[[Sequence[Any]], Response]


# Raises InputError. Called in the thread in which the model will run.
Read = Callable[[Request, Serving], Asked]
