"""Tokens let in exactly as many devices as they say; credentials are hashed, rotate and can be revoked."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select, text

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.wire import tokens
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.services import deploy, enrol, revisions
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle, document


def token(state: State, *, uses: int = 1, target: str | None = None, **labels: str) -> str:
    return enrol.create_token(
        state, uses=uses, ttl=timedelta(hours=1), labels=labels, target=target, note="", actor="me"
    ).text


def test_a_token_with_one_use_lets_one_device_in_however_many_try(state: State) -> None:
    text_ = token(state)
    admitted: list[str] = []
    refused: list[Exception] = []

    def attempt(number: int) -> None:
        try:
            admitted.append(enrol.enrol(state, text_, f"robot-{number}", f"key-{number:08}"))
        except errors.ServerError as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(admitted), len(refused)) == (1, 11)
    with state.database.read() as session:
        assert len(session.scalars(select(models.Target)).all()) == 1


def test_a_lost_answer_is_given_again_for_ten_minutes(state: State, clock: Clock) -> None:
    text_ = token(state)
    first = enrol.enrol(state, text_, "robot-07", "key-00000001")
    clock.pass_by(minutes=5)
    assert enrol.enrol(state, text_, "robot-07", "key-00000001") == first
    with pytest.raises(errors.ConflictError):
        enrol.enrol(state, text_, "robot-08", "key-00000001")
    clock.pass_by(minutes=10)
    with pytest.raises(errors.ConflictError):
        enrol.enrol(state, text_, "robot-07", "key-00000001")


def test_wrong_expired_and_revoked_tokens_say_the_same(state: State, clock: Clock) -> None:
    good = token(state, uses=3)
    parsed = tokens.parse_token(good)
    wrong = tokens.format_token(parsed._replace(secret="0" * 48))
    unknown = tokens.format_token(parsed._replace(id="0" * 16))
    said = set()
    for text_ in (wrong, unknown):
        with pytest.raises(errors.UnauthenticatedError) as caught:
            enrol.enrol(state, text_, "robot-07", "key-00000001")
        said.add(str(caught.value))
    clock.pass_by(hours=2)
    with pytest.raises(errors.UnauthenticatedError) as caught:
        enrol.enrol(state, good, "robot-07", "key-00000001")
    said.add(str(caught.value))
    revoked = token(state)
    enrol.revoke_token(state, tokens.parse_token(revoked).id)
    with pytest.raises(errors.UnauthenticatedError) as caught:
        enrol.enrol(state, revoked, "robot-07", "key-00000001")
    said.add(str(caught.value))
    assert len(said) == 1
    assert "edgeflow tokens create" in said.pop()


def test_what_is_no_token_is_not_repeated(state: State) -> None:
    with pytest.raises(agent_errors.ContractError) as caught:
        enrol.enrol(state, "hunter2", "robot-07", "key-00000001")
    assert "hunter2" not in str(caught.value)


def test_an_existing_target_needs_a_token_of_its_own(state: State) -> None:
    old = enrol.enrol(state, token(state), "robot-07", "key-00000001")
    with pytest.raises(errors.ConflictError, match="--target robot-07"):
        enrol.enrol(state, token(state), "robot-07", "key-00000002")
    new = enrol.enrol(state, token(state, target="robot-07"), "robot-07", "key-00000003")
    assert enrol.authenticate(state, new) == "robot-07"
    assert enrol.authenticate(state, old) is None
    with pytest.raises(errors.ForbiddenError):
        enrol.enrol(state, token(state, target="robot-08"), "robot-09", "key-00000004")


def test_labels_of_the_token_go_to_the_device(state: State) -> None:
    enrol.enrol(state, token(state, site="lyon"), "robot-07", "key-00000001")
    with state.database.read() as session:
        assert session.get_one(models.Target, "robot-07").labels == {"site": "lyon"}


def test_no_secret_is_in_the_database(state: State) -> None:
    text_ = token(state)
    credential = enrol.enrol(state, text_, "robot-07", "key-00000001")
    parsed = tokens.parse_credential(credential)
    assert parsed is not None
    with state.database.engine.connect() as link:
        rows = [
            repr(row)
            for table in models.Base.metadata.tables
            for row in link.execute(text(f"SELECT * FROM {table}"))
        ]
    dump = "\n".join(rows)
    assert tokens.parse_token(text_).secret not in dump
    assert parsed.secret not in dump


def test_wrong_credentials_open_nothing(state: State) -> None:
    good = enrol.enrol(state, token(state), "robot-07", "key-00000001")
    parsed = tokens.parse_credential(good)
    assert parsed is not None
    for bad in (
        "",
        "efd1_",
        good[:-1],
        good + "0",
        tokens.format_credential(parsed._replace(secret="0" * 64)),
    ):
        assert enrol.authenticate(state, bad) is None
    assert enrol.authenticate(state, good) == "robot-07"


def test_rotation_keeps_the_old_one_until_the_new_one_is_used(state: State, clock: Clock) -> None:
    old = enrol.enrol(state, token(state), "robot-07", "key-00000001")
    new = enrol.rotate(state, "robot-07", old)
    assert enrol.authenticate(state, old) == "robot-07"
    assert enrol.authenticate(state, new) == "robot-07"
    assert enrol.authenticate(state, old) is None
    lost = enrol.rotate(state, "robot-07", new)
    clock.pass_by(days=90)
    assert enrol.authenticate(state, new) == "robot-07", "a lost answer locks nobody out"
    newest = enrol.rotate(state, "robot-07", new)
    assert enrol.authenticate(state, lost) is None
    assert enrol.authenticate(state, newest) == "robot-07"
    assert enrol.authenticate(state, new) is None


def test_a_target_that_was_deleted_comes_back_above_its_history(state: State) -> None:
    enrol.enrol(state, token(state), "robot-07", "key-00000001")
    what = revisions.What(bundle_id=add_bundle(state).id, model_uri="models:/iris/1")
    deploy.create(state, "iris", where=deploy.Where(targets=("robot-07",)), what=what, actor="me")
    with pytest.raises(errors.ConflictError, match="belongs to deployment 'iris'"):
        enrol.forget(state, "robot-07")
    deploy.delete(state, "iris", keep_serving=False, actor="anna")
    enrol.forget(state, "robot-07")
    with state.database.read() as session:
        assert {row.state for row in session.scalars(select(models.Execution))} == {"superseded"}
    with pytest.raises(errors.NotFoundError):
        enrol.forget(state, "robot-07")
    enrol.enrol(state, token(state), "robot-07", "key-00000002")
    deploy.create(state, "iris", where=deploy.Where(targets=("robot-07",)), what=what, actor="me")
    assert document(state, "robot-07").generation == 3


def test_a_revoked_device_is_out(state: State) -> None:
    credential = enrol.enrol(state, token(state), "robot-07", "key-00000001")
    assert enrol.without_credential(state, frozenset({"robot-07"})) == frozenset()
    enrol.revoke(state, "robot-07")
    assert enrol.authenticate(state, credential) is None
    assert enrol.without_credential(state, frozenset({"robot-07", "x"})) == {"robot-07", "x"}
    with pytest.raises(errors.NotFoundError):
        enrol.revoke(state, "nobody")
