"""What makes a request wait is bounded: many that wait must not keep others from being served."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from edgeflow_mlflow import catalog, errors
from edgeflow_mlflow.api import publishing
from edgeflow_mlflow.services import rpc
from edgeflow_mlflow.services.state import State
from tests.harness import until
from tests.server.conftest import add_bundle, add_target


def test_remote_calls_that_wait_are_bounded(state: State) -> None:
    add_target(state, "robot-07")
    raised: list[errors.ServerError] = []

    def ask() -> None:
        try:
            rpc.ask(state, "robot-07", "predict", b"[]", timeout_s=3.0)
        except errors.ServerError as error:
            raised.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kinds = [type(error) for error in raised]
    assert kinds.count(errors.TooManyError) >= 1
    assert kinds.count(errors.ConflictError) == 20 - kinds.count(errors.TooManyError) <= 16
    with pytest.raises(errors.ConflictError, match="did not answer"):
        rpc.ask(state, "robot-07", "predict", b"[]", timeout_s=0.01)


def test_files_that_are_lost_are_fetched_by_one_asker(state: State) -> None:
    asked: list[catalog.Model] = []
    answer = threading.Event()

    class Slow(catalog.Catalog):
        """A catalog whose artifact store answers late, with an error."""

        def fetch(self, model: catalog.Model, folder: Path) -> Any:
            asked.append(model)
            answer.wait(10)
            raise errors.UnprocessableError("the store is away")

    bundle = add_bundle(state, uuid.uuid4().hex)
    slow = Slow(tracking=lambda: None, registry=lambda: None, repository=lambda uri: (None, ""))
    raised: list[errors.ServerError] = []

    def ask() -> None:
        try:
            publishing.restore(state, slow, bundle)
        except errors.ServerError as error:
            raised.append(error)

    first = threading.Thread(target=ask)
    first.start()
    until(lambda: asked, "the first asker")
    with pytest.raises(errors.TooManyError, match="being fetched"):
        publishing.restore(state, slow, bundle)
    answer.set()
    first.join()
    assert [str(error) for error in raised] == ["MLflow does not give out the files: the store is away"]
    with pytest.raises(errors.TooManyError):
        publishing.restore(state, slow, bundle)
    assert len(asked) == 1, "a failure is remembered for a while"
