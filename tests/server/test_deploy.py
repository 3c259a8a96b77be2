"""Deployments: one open execution per target, rising generations, reports stored exactly once."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy
from sqlalchemy import select

from edgeflow_agent import errors as agent_errors
from edgeflow_agent.wire import documents
from edgeflow_agent.wire.documents import Action, Presence, PresenceKind
from edgeflow_agent.wire.states import State as Step
from edgeflow_mlflow import errors
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.engine import FenceLostError
from edgeflow_mlflow.services import deploy, desired, fleets, ingest, lease, reconcile, revisions, usage
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle, add_target, document

COUNTER = itertools.count(1)


def what(bundle: models.Bundle) -> revisions.What:
    return revisions.What(bundle_id=bundle.id, model_uri=f"models:/iris/{bundle.model_version}")


def create(
    state: State, *targets: str, name: str = "iris", version: str = "1", replace: bool = False
) -> None:
    with state.database.read() as session:
        bundle = session.get(models.Bundle, f"bundle-iris-{version}")
    deploy.create(
        state,
        name,
        where=deploy.Where(targets=targets),
        what=what(bundle or add_bundle(state, version)),
        replace=replace,
        actor="me",
    )


def update(state: State, version: str, name: str = "iris", where: deploy.Where | None = None) -> None:
    with state.database.read() as session:
        bundle = session.get(models.Bundle, f"bundle-iris-{version}")
    deploy.update(
        state,
        name,
        deploy.Change(where=where, what=what(bundle or add_bundle(state, version)), reason="better"),
        actor="me",
    )


def executions(state: State, target: str) -> list[models.Execution]:
    with state.database.read() as session:
        return list(
            session.scalars(
                select(models.Execution)
                .where(models.Execution.target_id == target)
                .order_by(models.Execution.generation)
            )
        )


def report(execution: models.Execution, step: Step, **more: object) -> documents.Report:
    return documents.Report(
        **{  # type: ignore[arg-type]
            "boot": "boot-1",
            "seq": next(COUNTER),
            "execution": execution.id,
            "generation": execution.generation,
            "state": step,
            **more,
        }
    )


@pytest.fixture
def two(state: State) -> State:
    add_target(state, "robot-07", site="lyon")
    add_target(state, "robot-12", site="metz")
    return state


def test_a_deployment_signs_a_document_for_each_target(two: State) -> None:
    create(two, "robot-07", "robot-12")
    for target in ("robot-07", "robot-12"):
        found = document(two, target)
        (deployment,) = found.deployments
        assert found.generation == 1
        assert deployment.action is Action.INSTALL
        assert deployment.model == documents.ModelRef(name="iris", version="1", run_id="run-1")
        (execution,) = executions(two, target)
        assert (execution.state, execution.id) == ("pending", deployment.execution)
        assert execution.deadline_at is not None


def test_a_newer_version_supersedes_what_is_under_way(two: State) -> None:
    create(two, "robot-07")
    update(two, "2")
    first, second = executions(two, "robot-07")
    assert (first.state, second.state) == ("superseded", "pending")
    assert document(two, "robot-07").generation == second.generation == 2
    ingest.reports(two, "robot-07", [report(first, Step.DEPLOYED)])
    assert [item.state for item in executions(two, "robot-07")] == ["superseded", "pending"], "ends stick"


def test_targets_that_join_and_leave(two: State) -> None:
    create(two, "robot-07")
    ingest.reports(two, "robot-07", [report(executions(two, "robot-07")[0], Step.DEPLOYED)])
    both = deploy.Where(targets=("robot-07", "robot-12"))
    deploy.update(two, "iris", deploy.Change(where=both, reason="grow"), actor="me")
    assert [item.state for item in executions(two, "robot-07")] == ["deployed"], "who stays is left alone"
    assert [item.action for item in executions(two, "robot-12")] == ["install"]
    only = deploy.Where(targets=("robot-12",))
    deploy.update(two, "iris", deploy.Change(where=only, reason="shrink"), actor="me")
    assert [item.action for item in executions(two, "robot-07")] == ["install", "remove"]


def test_another_deployments_target_is_not_taken_by_accident(two: State) -> None:
    create(two, "robot-07")
    with pytest.raises(errors.ConflictError, match="replace=true"):
        create(two, "robot-07", name="other")
    create(two, "robot-07", name="other", replace=True)
    with two.database.read() as session:
        iris = deploy.get(session, "iris")
        assert deploy.bound(session, iris) == []
        assert [item.id for item in deploy.bound(session, deploy.get(session, "other"))] == ["robot-07"]


def test_what_was_taken_over_does_not_stop_the_rest_of_a_deployment(two: State) -> None:
    where = deploy.Where(selector="site")
    deploy.create(two, "iris", where=where, what=what(add_bundle(two)), actor="me")
    create(two, "robot-07", name="other", replace=True)
    update(two, "2")
    assert document(two, "robot-07").deployments[0].name == "other"
    model = document(two, "robot-12").deployments[0].model
    assert model is not None
    assert model.version == "2"
    with pytest.raises(errors.ConflictError, match="belongs to deployment 'other'"):
        update(two, "3", where=where)


def test_settings_are_merged_one_by_one(two: State) -> None:
    create(two, "robot-07")
    changes: list[dict[str, dict[str, object]]] = [
        {"trial": {"duration_s": 5.0, "minimum_requests": 3}},
        {"trial": {"duration_s": 7.0}, "runtime": {"threads": 2}},
    ]
    for settings in changes:
        deploy.update(two, "iris", deploy.Change(settings=settings), actor="me")
    found = document(two, "robot-07").deployments[0]
    assert (found.trial.duration_s, found.trial.minimum_requests, found.runtime.threads) == (7.0, 3, 2)
    with pytest.raises(errors.InvalidError, match="nothing to update"):
        deploy.update(two, "iris", deploy.Change(settings=settings), actor="me")


def test_a_change_can_depend_on_the_rollout_that_was_seen(two: State) -> None:
    create(two, "robot-07")
    with two.database.read() as session:
        seen = deploy.get(session, "iris").rollout_id
    update(two, "2")
    late = deploy.Change(what=what(add_bundle(two, "3")), expected_rollout=seen)
    with pytest.raises(errors.ChangedError):
        deploy.update(two, "iris", late, actor="alias")


@pytest.mark.parametrize(("files", "labels", "words"), [(65, 0, "65 files"), (1, 5000, "fewer or shorter")])
def test_what_no_device_would_take_is_not_signed(two: State, files: int, labels: int, words: str) -> None:
    bundle = add_bundle(two)
    with two.database.write() as session:
        row = session.get_one(models.Bundle, bundle.id)
        row.files = [{**row.files[0], "path": f"model-{number}.onnx"} for number in range(files)]
        row.entry = "model-0.onnx"
        row.interface = {"labels": [f"label number {number}" for number in range(labels)]}
    with pytest.raises(errors.UnprocessableError, match=words):
        create(two, "robot-07")
    with two.database.read() as session:
        assert session.get_one(models.Target, "robot-07").document is None
        assert session.scalars(select(models.Deployment)).all() == []


def test_deleting_removes_or_holds(two: State) -> None:
    create(two, "robot-07")
    create(two, "robot-12", name="held", version="2")
    deploy.delete(two, "iris", keep_serving=False, actor="anna")
    deploy.delete(two, "held", keep_serving=True, actor="anna")
    assert document(two, "robot-07").deployments[0].action is Action.REMOVE
    assert document(two, "robot-12").deployments[0].action is Action.HOLD
    with two.database.read() as session, pytest.raises(errors.NotFoundError):
        deploy.get(session, "iris")
    create(two, "robot-07")  # the name and the target are free again


def test_where_must_be_said_once_and_must_exist(two: State) -> None:
    bundle = add_bundle(two)
    cases: list[tuple[deploy.Where, type[errors.ServerError], str]] = [
        (deploy.Where(), errors.InvalidError, "exactly one"),
        (deploy.Where(targets=("robot-07",), fleet="x"), errors.InvalidError, "exactly one"),
        (deploy.Where(targets=("robot-70",)), errors.NotFoundError, "did you mean 'robot-07'"),
        (deploy.Where(fleet="nowhere"), errors.NotFoundError, "no fleet"),
        (deploy.Where(selector="site=paris"), errors.InvalidError, "holds no target"),
    ]
    for where, kind, words in cases:
        with pytest.raises(kind, match=words):
            deploy.create(two, "iris", where=where, what=what(bundle), replace=False, actor="me")
    with two.database.read() as session:
        assert session.scalars(select(models.Deployment)).all() == [], "a refusal leaves nothing behind"


def test_fleets_by_selector_and_by_list(two: State) -> None:
    fleets.create(two, "lyon", selector="site=lyon", targets=(), actor="me")
    fleets.create(two, "some", selector="", targets=("robot-12",), actor="me")
    for fleet, expected in (("lyon", "robot-07"), ("some", "robot-12")):
        bundle = add_bundle(two, version=fleet)
        deploy.create(
            two, fleet, where=deploy.Where(fleet=fleet), what=what(bundle), replace=False, actor="me"
        )
        assert len(executions(two, expected)) == 1
    with pytest.raises(errors.ConflictError, match="used by deployment"):
        fleets.delete(two, "lyon")
    for selector, targets in (("", ()), ("site=lyon", ("robot-07",))):
        with pytest.raises(errors.InvalidError, match="either"):
            fleets.change(two, "lyon", selector=selector, targets=targets)


def test_reports_are_stored_once_and_answered_each_time(two: State) -> None:
    create(two, "robot-07")
    (execution,) = executions(two, "robot-07")
    batch = [report(execution, Step.ACCEPTED), report(execution, Step.LOADING)]
    first = ingest.reports(two, "robot-07", batch)
    assert first == ingest.reports(two, "robot-07", batch)
    assert first[0].seqs == tuple(item.seq for item in batch)
    with two.database.read() as session:
        assert len(session.scalars(select(models.DeviceReport)).all()) == 2
    assert executions(two, "robot-07")[0].state == "loading"


def test_a_text_that_a_database_cannot_store_does_not_lose_a_report(two: State) -> None:
    create(two, "robot-07")
    (execution,) = executions(two, "robot-07")
    ingest.reports(two, "robot-07", [report(execution, Step.FAILED, message="bad\0text")])
    assert [(item.state, item.message) for item in executions(two, "robot-07")] == [
        ("failed", "bad\ufffdtext")
    ]
    ingest.presence(two, "robot-07", heartbeat(execution, "", hostname="a\0b"), connected=True)
    for boot in ("b" * 65, "a\0b"):
        with pytest.raises(agent_errors.ContractError, match="boot"):
            ingest.reports(two, "robot-07", [report(execution, Step.FAILED, boot=boot)])
    with pytest.raises(agent_errors.ContractError, match="digest"):
        ingest.presence(two, "robot-07", heartbeat(execution, "d" * 65), connected=True)


def test_a_report_of_another_target_moves_nothing(two: State) -> None:
    create(two, "robot-07", "robot-12")
    (mine,) = executions(two, "robot-07")
    ingest.reports(two, "robot-12", [report(mine, Step.FAILED)])
    assert executions(two, "robot-07")[0].state == "pending"
    with two.database.read() as session:
        assert session.scalars(select(models.DeviceReport.decision)).all() == ["no_execution"]
    with pytest.raises(errors.NotFoundError):
        ingest.reports(two, "stranger", [report(mine, Step.FAILED)])


def heartbeat(execution: models.Execution, digest: str, **more: object) -> Presence:
    return Presence(
        **{  # type: ignore[arg-type]
            "kind": PresenceKind.HEARTBEAT,
            "boot": "boot-1",
            "generation": execution.generation,
            "execution": execution.id,
            "digest": digest,
            "serving": True,
            **more,
        }
    )


def test_the_server_converges_from_a_heartbeat_when_the_report_was_lost(two: State) -> None:
    create(two, "robot-07")
    (execution,) = executions(two, "robot-07")
    digest = add_bundle(two, "9").digest
    ingest.presence(two, "robot-07", heartbeat(execution, digest), connected=True)
    assert executions(two, "robot-07")[0].state == "pending", "it serves something else"
    with two.database.read() as session:
        right = session.get_one(models.Bundle, "bundle-iris-1").digest
    ingest.presence(two, "robot-07", heartbeat(execution, right), connected=True)
    done = executions(two, "robot-07")[0]
    assert (done.state, done.reason) == ("deployed", "converged")


def test_a_heartbeat_that_says_nothing_new_is_one_statement(two: State) -> None:
    create(two, "robot-07")
    (execution,) = executions(two, "robot-07")
    with two.database.read() as session:
        digest = session.get_one(models.Bundle, "bundle-iris-1").digest
    statements: list[str] = []

    def beat(**said: object) -> int:
        statements.clear()
        ingest.presence(two, "robot-07", heartbeat(execution, digest, **said), connected=True)
        return sum("edgeflow_" in statement and " FOR " not in statement for statement in statements)

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    sqlalchemy.event.listen(two.database.engine, "before_cursor_execute", note)
    assert beat() > 1, "it proves that the execution is done"
    assert beat(uptime_s=5.0) == 1
    with two.database.read() as session:
        target = session.get_one(models.Target, "robot-07")
    assert target.presence["uptime_s"] == 5.0
    assert target.last_seen_at == two.now()
    assert beat(generation=execution.generation + 7) > 1, "the server was restored from a backup"
    assert document(two, "robot-07").generation == execution.generation + 8


def test_a_server_restored_from_a_backup_continues_above_its_devices(two: State) -> None:
    create(two, "robot-07")
    (execution,) = executions(two, "robot-07")
    ingest.presence(two, "robot-07", heartbeat(execution, "x", generation=500), connected=True)
    found = document(two, "robot-07")
    assert found.generation == 501
    assert executions(two, "robot-07")[0].generation == 501
    ingest.presence(two, "robot-07", heartbeat(execution, "x", generation=10**9), connected=True)
    assert document(two, "robot-07").generation == 501, "an absurd floor is not believed"
    update(two, "2")
    assert document(two, "robot-07").generation == 502


def test_a_birth_brings_the_document_again(two: State) -> None:
    create(two, "robot-07")
    ingest.connection(two, "robot-07", connected=True)
    (outgoing,) = reconcile.outgoing(two)
    ingest.offered(two, {"robot-07": outgoing.generation})
    assert reconcile.outgoing(two) == []
    assert executions(two, "robot-07")[0].state == "offered"
    ingest.presence(two, "robot-07", Presence(kind=PresenceKind.BIRTH, boot="boot-2"), connected=True)
    assert [item.target for item in reconcile.outgoing(two)] == ["robot-07"]
    ingest.nobody_connected(two)
    assert reconcile.outgoing(two) == []


def test_nothing_is_under_way_for_ever(two: State, clock: Clock) -> None:
    create(two, "robot-07", "robot-12")
    (mine,) = executions(two, "robot-07")
    ingest.reports(two, "robot-07", [report(mine, Step.DOWNLOADING)])
    clock.pass_by(hours=2)
    assert reconcile.time_out(two) == 1
    assert executions(two, "robot-07")[0].state == "timed_out"
    assert executions(two, "robot-12")[0].state == "pending", "an offline device may take longer"
    clock.pass_by(days=8)
    assert reconcile.time_out(two) == 1
    late = executions(two, "robot-12")[0]
    assert (late.state, late.reason) == ("timed_out", "unreached")
    assert "no device took it up" in late.message


def test_documents_are_reissued_at_half_of_their_life(two: State, clock: Clock) -> None:
    create(two, "robot-07")
    before = document(two, "robot-07")
    assert reconcile.reissue_aging(two) == 0
    clock.pass_by(days=4)
    assert reconcile.reissue_aging(two) == 1
    after = document(two, "robot-07")
    assert after.generation == before.generation
    assert after.expires_at > before.expires_at
    assert after.deployments == before.deployments


def test_old_reports_are_forgotten(two: State, clock: Clock) -> None:
    create(two, "robot-07")
    (mine,) = executions(two, "robot-07")
    ingest.reports(two, "robot-07", [report(mine, Step.ACCEPTED)])
    clock.pass_by(days=91)
    reconcile.forget_old_reports(two)
    with two.database.read() as session:
        assert session.scalars(select(models.DeviceReport)).all() == []


def test_unreadable_messages_are_kept_but_not_without_bound(two: State) -> None:
    for number in range(30):
        ingest.unreadable(two, "robot-07", "presence", b"\xff" * 10_000, f"error {number}")
    with two.database.read() as session:
        kept = session.scalars(select(models.Unreadable)).all()
    assert [item.error for item in kept] == [f"error {number}" for number in range(10, 30)]
    assert all(len(item.payload) == 4096 for item in kept)


def test_where_a_version_is(two: State) -> None:
    create(two, "robot-07")
    with two.database.read() as session:
        (found,) = usage.of_version(session, "iris", "1")
        assert (found.target.id, found.desired, found.actual) == ("robot-07", True, False)
        assert usage.of_version(session, "iris", "2") == []
        assert [item.target.id for item in usage.of_run(session, "run-1")] == ["robot-07"]
    deploy.delete(two, "iris", keep_serving=True, actor="anna")
    with two.database.read() as session:
        digest = session.get_one(models.Bundle, "bundle-iris-1").digest
    (*_, last) = executions(two, "robot-07")
    ingest.presence(two, "robot-07", heartbeat(last, digest), connected=True)
    with two.database.read() as session:
        (found,) = usage.of_version(session, "iris", "1")
        assert (found.desired, found.actual) == (False, True), "it still serves what nobody wishes any more"


def test_a_target_that_changes_is_bound_to_both_versions(two: State) -> None:
    create(two, "robot-07")
    (first,) = executions(two, "robot-07")
    with two.database.read() as session:
        digest = session.get_one(models.Bundle, "bundle-iris-1").digest
    ingest.presence(two, "robot-07", heartbeat(first, digest), connected=True)
    update(two, "2")
    with two.database.read() as session:
        found = usage.of_bundles(session, usage.bundles_of(session, "iris"))
    bonds = {item.bundle.model_version: (item.desired, item.actual) for item in found}
    assert bonds == {"1": (False, True), "2": (True, False)}


def test_the_fence_keeps_a_former_hub_from_writing(two: State, clock: Clock) -> None:
    first = lease.take(two, "host-a/1", alone_on=None)
    assert first == 1
    assert lease.take(two, "host-b/2", alone_on=None) is None
    old = two.database.fenced(first)
    with old.write() as session:
        session.add(models.Fact(name="a", value="b"))
    clock.pass_by(seconds=16)
    assert lease.take(two, "host-b/2", alone_on=None) == 2
    with pytest.raises(FenceLostError), old.write() as session:
        session.add(models.Fact(name="c", value="d"))
    assert not lease.renew(two, first, {})
    with two.database.read() as session:
        assert session.get(models.Fact, "c") is None


def test_the_lease_of_a_dead_hub_on_this_host_is_free_at_once(two: State) -> None:
    assert lease.take(two, "host-a/1", alone_on="host-a") == 1
    assert lease.take(two, "host-a/2", alone_on="host-a") == 2
    assert lease.take(two, "host-b/3", alone_on="host-b") is None
    lease.release(two, 2)
    assert lease.current(two) is None
    assert lease.take(two, "host-b/3", alone_on="host-b") == 3


def test_the_newest_execution_is_the_one_that_the_document_speaks_of(two: State) -> None:
    create(two, "robot-07")
    update(two, "2")
    with two.database.read() as session:
        target = session.get_one(models.Target, "robot-07")
        newest = desired.latest_execution(session, target)
    assert newest is not None
    assert newest.id == document(two, "robot-07").deployments[0].execution


def test_a_device_that_waits_says_why(two: State) -> None:
    create(two, "robot-07")
    (mine,) = executions(two, "robot-07")
    said = "loaded, and waits to take over: agent.can_update ended with exit code 1"
    ingest.reports(two, "robot-07", [report(mine, Step.LOADING)])
    ingest.reports(two, "robot-07", [report(mine, Step.LOADING, message=said)])
    (mine,) = executions(two, "robot-07")
    assert (mine.state, mine.message) == ("loading", said)
    ingest.reports(two, "robot-07", [report(mine, Step.LOADING, progress=0.5)])
    assert executions(two, "robot-07")[0].message == said, "news without words takes none away"
