"""What a recall decides for each device, and what it holds back."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from edgeflow_mlflow import errors
from edgeflow_mlflow.cli import show
from edgeflow_mlflow.db import models
from edgeflow_mlflow.domain import differences, lineage, recalls
from edgeflow_mlflow.domain.lineage import Edge
from edgeflow_mlflow.domain.recalls import Candidate, Remedy, Stand, Status
from edgeflow_mlflow.services import advance, control, deploy, desired, revisions
from edgeflow_mlflow.services.lineage import edges, recall_plan, recall_progress, recalling, tracing
from edgeflow_mlflow.services.state import State
from tests.server.conftest import add_bundle, add_target

ALL = [
    Stand(serves=serves, wanted=wanted, fallback=fallback, is_deployed=deployed, has_alternative=other)
    for serves, wanted, fallback, deployed, other in itertools.product((False, True), repeat=5)
]


@pytest.mark.parametrize("stand", ALL)
def test_every_device_has_a_remedy_and_a_status(stand: Stand) -> None:
    remedy = recalls.remedy(stand)
    assert (remedy is Remedy.ROLL_OUT) == (stand.wanted and stand.has_alternative)
    assert remedy is not Remedy.CLEAR or not stand.serves
    status = recalls.status(stand, decided=remedy, is_online=True, is_held=True, error="")
    assert (status is Status.CORRECTED) == (not recalls.bonds(stand))
    assert recalls.status(None, decided=remedy, is_online=False, is_held=False, error="") is Status.GONE


def test_the_newest_clean_version() -> None:
    def version(number: int, *, tainted: bool = False, deployable: bool = True) -> Candidate:
        return Candidate(number=number, is_tainted=tainted, is_deployable=deployable)

    assert recalls.newest_clean([]) is None
    assert recalls.newest_clean([version(1), version(3, tainted=True), version(4, deployable=False)]) == 1
    assert recalls.newest_clean([version(9), version(10), version(2)]) == 10


def _dataset(state: State, name: str = "sensors") -> models.Dataset:
    fact = {"name": name, "digest": "d1", "content": "", "source_type": "local", "source": "x"}
    fact["id"] = lineage.dataset_id(name, "d1", "")
    with state.database.write() as session:
        edges.add_datasets(session, [fact], state.now())
        return session.get_one(models.Dataset, fact["id"])


def _trained(state: State, version: str, dataset: models.Dataset, context: str = "training") -> None:
    """A published version with the edges that were frozen with it."""
    bundle = add_bundle(state, version)
    node, run = lineage.version("iris", version), lineage.run(f"run-{version}")
    found = [
        Edge(child=node, parent=run, how=lineage.MADE_BY),
        Edge(child=run, parent=lineage.dataset(dataset.id), how=lineage.USED, context=context),
    ]
    with state.database.write() as session:
        row = session.get_one(models.Bundle, bundle.id)
        row.lineage = {**row.lineage, "node": node, "edges": lineage.as_rows(found)}
        edges.add_edges(session, found)


def _plan(state: State, dataset: models.Dataset, goes_to: str = "models:/iris/1") -> recall_plan.Plan:
    with state.database.read() as session:
        reach = tracing.reach(session, [dataset], edges.children(session), any_use=False)
        return recall_plan.plan(session, reach, any_use=False, alternatives={"iris": goes_to})


def _what(version: str) -> revisions.What:
    return revisions.What(bundle_id=f"bundle-iris-{version}", model_uri=f"models:/iris/{version}")


def _deploy(state: State, version: str, *targets: str) -> models.Deployment:
    return deploy.create(
        state, "iris", where=deploy.Where(targets=targets), what=_what(version), actor="somebody"
    )


def test_what_is_recalled_is_held_back_until_it_is_lifted(state: State) -> None:
    bad, good = _dataset(state), _dataset(state, "good")
    _trained(state, "1", good)
    _trained(state, "2", bad)
    _trained(state, "3", bad, context="Eval")
    add_target(state, "robot")
    deployment = _deploy(state, "2", "robot")
    plan = _plan(state, bad)
    assert [(item.row.target_id, item.remedy) for item in plan.devices] == [("robot", Remedy.ROLL_OUT)]
    with pytest.raises(errors.InvalidError, match="say why"):
        recalling.begin(state, plan, why=" ", actor="me")
    recall = recalling.begin(state, plan, why="a sensor lied", actor="me")
    assert recalling.roll_out(state, recall, deployment.id, _what("1"), actor="me")
    assert not recalling.roll_out(state, recall, deployment.id, _what("1"), actor="me"), "it is there already"
    # Published afterwards, and made from it: nobody had to list it.
    _trained(state, "4", bad)
    for version in ("2", "4"):
        with pytest.raises(errors.ConflictError, match=f"recall lift {recall.id}"):
            deploy.update(state, "iris", deploy.Change(what=_what(version)), actor="x")
    deploy.update(state, "iris", deploy.Change(what=_what("3")), actor="x")  # only tested with it
    with state.database.read() as session:
        present = session.get_one(
            models.Rollout, session.get_one(models.Deployment, deployment.id).rollout_id
        )
        before = revisions.earlier(session, present)
    assert before is None or before.bundle_id == "bundle-iris-1", "nothing goes back to what is recalled"
    recalling.lift(state, recall.id, actor="me", why="cleaned")
    deploy.update(state, "iris", deploy.Change(what=_what("2")), actor="x")
    with pytest.raises(errors.ConflictError, match="lifted already"):
        recalling.lift(state, recall.id, actor="me", why="")


def test_what_was_made_from_what_in_circles_ends() -> None:
    ring = [Edge(child=f"run:{n}", parent=f"run:{(n + 1) % 5}", how=lineage.PART_OF) for n in range(5)]
    found = lineage.descend(["run:0"], lambda nodes: [edge for edge in ring if edge.parent in nodes])
    assert set(found) == {f"run:{n}" for n in range(5)}
    assert len(lineage.way("run:1", found)) == 4
    assert set(lineage.ascend("run:0", lambda nodes: [e for e in ring if e.child in nodes])) == set(ring)


def test_a_device_that_was_deleted_is_gone_and_one_that_comes_late_is_found(state: State) -> None:
    bad = _dataset(state)
    _trained(state, "2", bad)
    _trained(state, "1", _dataset(state, "good"))
    for name in ("one", "two"):
        add_target(state, name)
    _deploy(state, "2", "one")
    recall = recalling.begin(state, _plan(state, bad), why="bad", actor="me")
    with state.database.write() as session:
        session.delete(session.get_one(models.Target, "one"))
        late = session.get_one(models.Target, "two")
        late.actual_digest = next(iter(recall.digests))
    with state.database.read() as session:
        found = recall_progress.of(state, session, session.get_one(models.Recall, recall.id))
    assert {item.target.target_id: item.status for item in found} == {
        "one": Status.GONE,
        "two": Status.OFFLINE,
    }


def _wanted(state: State, target: str) -> str:
    """The bundle that a target is to serve."""
    with state.database.read() as session:
        row = session.get_one(models.Target, target)
        if row.rollout_id is None:
            return ""
        return session.get_one(models.Rollout, row.rollout_id).bundle_id


def test_who_joins_or_is_given_back_gets_nothing_that_is_recalled(state: State) -> None:
    bad = _dataset(state)
    _trained(state, "2", bad)
    _trained(state, "1", _dataset(state, "good"))
    for name in ("one", "two"):
        add_target(state, name)
    deployment = _deploy(state, "2", "one")
    recall = recalling.begin(state, _plan(state, bad), why="bad", actor="me")
    deploy.update(state, "iris", deploy.Change(where=deploy.Where(targets=("one", "two"))), actor="x")
    assert _wanted(state, "two") == "", "a late joiner"
    assert recalling.roll_out(state, recall, deployment.id, _what("1"), actor="me")
    assert (_wanted(state, "one"), _wanted(state, "two")) == ("bundle-iris-1", "bundle-iris-1")
    control.abort(state, "iris", control.Abort.KEEP, actor="x", why="")
    assert _wanted(state, "one") != "bundle-iris-2", "an aborted rollout gives back what was before"
    assert recalling.roll_out(state, recall, deployment.id, _what("1"), actor="me"), "once more"
    assert _wanted(state, "one") == "bundle-iris-1"


def test_a_rollout_under_way_is_paused_by_a_recall(state: State) -> None:
    bad = _dataset(state)
    _trained(state, "2", bad)
    for name in ("one", "two"):
        add_target(state, name)
    deployment = deploy.create(
        state,
        "iris",
        where=deploy.Where(targets=("one", "two")),
        what=_what("2"),
        settings={"rollout": {"waves": ["1", "100%"], "approval": True}},
        actor="x",
    )
    recall = recalling.begin(state, _plan(state, bad, goes_to=""), why="bad", actor="me")
    with state.database.write() as session:
        rollout = session.get_one(models.Rollout, deployment.rollout_id)
        advance.advance(state, session, rollout)
        assert (rollout.state, recall.id in rollout.why) == ("paused", True)
    control.resume(state, "iris", actor="x", why="go on")
    with state.database.read() as session:
        assert session.get_one(models.Rollout, deployment.rollout_id).state == "paused"


def test_a_second_look_finds_what_was_deployed_meanwhile(state: State) -> None:
    bad = _dataset(state)
    _trained(state, "2", bad)
    _trained(state, "1", _dataset(state, "good"))
    for name in ("one", "two"):
        add_target(state, name)
    before = _plan(state, bad)
    _deploy(state, "2", "one", "two")
    recall = recalling.begin(state, before, why="bad", actor="me")
    found = _plan(state, bad)
    recalling.adopt(state, recall.id, found)
    (part,) = recalling.parts(found)
    assert sorted(part.by_remedy[Remedy.ROLL_OUT]) == ["one", "two"]
    with state.database.read() as session:
        row = session.get_one(models.Recall, recall.id)
        assert len(recall_progress.of(state, session, row)) == 2


def test_a_recall_waits_for_who_gives_out_a_model_meanwhile(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = _dataset(state)
    _trained(state, "2", bad)
    _trained(state, "1", _dataset(state, "good"))
    add_target(state, "one")
    before = _plan(state, bad)
    given, go_on, begun = threading.Event(), threading.Event(), threading.Event()
    assign = desired.assign

    def slowly(*args: Any) -> dict[str, str]:
        executions = assign(*args)
        given.set()
        assert go_on.wait(20)
        return executions

    def begin() -> None:
        recalling.begin(state, before, why="bad", actor="me")
        begun.set()

    monkeypatch.setattr(desired, "assign", slowly)
    with ThreadPoolExecutor() as pool:
        deploying = pool.submit(_deploy, state, "2", "one")
        assert given.wait(20)
        beginning = pool.submit(begin)
        assert not begun.wait(0.5), "what is being given out is not committed"
        go_on.set()
        deploying.result(20)
        beginning.result(20)
    assert [item.row.target_id for item in _plan(state, bad).devices] == ["one"]
    add_target(state, "two")
    with pytest.raises(errors.ConflictError, match="recall lift"):
        deploy.create(state, "more", where=deploy.Where(targets=("two",)), what=_what("2"), actor="x")


def test_what_one_side_does_not_have_is_a_difference_or_the_same() -> None:
    left = {"model": {"digest": "ab"}, "metrics": {"rmse": None}}
    right = {"model": {"digest": "cd", "run": None}, "metrics": {}}
    (section, other) = differences.compare(left, right)
    assert [entry.name for entry in section.differences] == ["digest"]
    assert dict(section.same) == {"run": None}
    assert dict(other.same) == {"rmse": None}


def test_tables_show_words_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("A [b]",), [("tensor(float) [None, 3] [/x]",)], empty="")
    assert "tensor(float) [None, 3] [/x]" in capsys.readouterr().out
