"""Alerts on real databases, from the rows that devices leave to a real receiver over HTTP."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select, update

from edgeflow_mlflow import errors
from edgeflow_mlflow.config import Config
from edgeflow_mlflow.db import models
from edgeflow_mlflow.db.engine import FenceLostError
from edgeflow_mlflow.domain import alert_rules as rules
from edgeflow_mlflow.domain.alert_groups import Pace
from edgeflow_mlflow.services import alert_rules, alerting, deliveries, lease, posting, receivers, silences
from edgeflow_mlflow.services.posting import Reply
from edgeflow_mlflow.services.state import State
from tests.server.conftest import Clock, add_bundle
from tests.server.receiving import Receiver, http_receiver

_SEQ = itertools.count()
QUICK = Pace(wait=timedelta(), interval=timedelta(seconds=1), repeat=timedelta(hours=4))


def with_settings(state: State, **change: Any) -> State:
    values = {**state.config.values, **{name.replace("__", "."): value for name, value in change.items()}}
    return dataclasses.replace(state, config=Config(values))


@pytest.fixture
def here(state: State) -> State:
    """A state that may send to this machine."""
    return with_settings(
        state,
        notifications__allow_private=True,
        notifications__external_url="https://fleet.example",
        alerts__every_s=200.0,  # so rare that two looks are enough for some minutes
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as found:
        yield found


def seen(state: State, *names: str, **change: Any) -> None:
    """These devices are heard now; those that are new are let in."""
    with state.database.write() as session:
        for name in names:
            row = session.get(models.Target, name)
            if row is None:
                row = models.Target(id=name, labels={}, created_at=state.now())
                session.add(row)
                session.add(
                    models.Credential(id=f"c-{name}", target_id=name, secret_hash="x", created_at=state.now())
                )
            row.last_seen_at = state.now()
            for key, value in change.items():
                setattr(row, key, value)


def tell(state: State, receiver: Receiver, name: str = "ops", **change: Any) -> None:
    usual: dict[str, Any] = {
        "kind": "webhook",
        "url": f"{receiver.url}/hook",
        "secret": "s3cret",
        "pace": QUICK,
    }
    receivers.put(state, name, receivers.Wanted(**{**usual, **change}), actor="admin")


def send_all(state: State) -> None:
    for name in deliveries.waiting(state):
        deliveries.forward(state, name)
        while deliveries.send_next(state, name):
            pass


def firing(state: State) -> list[str]:
    with state.database.read() as session:
        rows = session.scalars(select(models.Alert).where(models.Alert.phase == "firing"))
        return sorted(f"{row.rule} {row.target_id}".strip() for row in rows)


def offline(state: State, clock: Clock, *names: str) -> None:
    """These devices have been away for long enough for the starter rule."""
    seen(state, *names)
    for seconds in (60, 301):
        clock.pass_by(seconds=seconds)
        alerting.evaluate(state)


# ---- from a device that goes to a receiver that is told


def test_an_alert_is_told_once_and_its_end_once(here: State, clock: Clock, receiver: Receiver) -> None:
    tell(here, receiver)
    offline(here, clock, "robot-07")
    assert firing(here) == ["TargetOffline robot-07"]
    send_all(here)
    for _ in range(5):
        clock.pass_by(seconds=20)
        alerting.evaluate(here)
        send_all(here)
    assert receiver.statuses() == ["firing"]
    seen(here, "robot-07")
    for _ in range(3):
        alerting.evaluate(here)
        send_all(here)
        clock.pass_by(seconds=2)
    assert receiver.statuses() == ["firing", "resolved"]
    assert firing(here) == []
    (first, second) = receiver.received
    assert first.delivery_id != second.delivery_id
    said = first.json
    assert set(said) == {
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
        "commonAnnotations", "externalURL", "alerts",
    }  # fmt: skip
    assert (said["version"], said["truncatedAlerts"], said["receiver"]) == ("4", 0, "ops")
    assert said["groupLabels"] == {"alertname": "TargetOffline"}
    (alert,) = said["alerts"]
    assert set(alert) == {
        "status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint",
    }  # fmt: skip
    assert alert["labels"]["target"] == "robot-07"
    assert alert["annotations"]["summary"] == "robot-07 has not been heard since 2026-03-03 12:00:00 UTC"
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    ended = second.json["alerts"][0]
    assert ended["fingerprint"] == alert["fingerprint"]
    assert ended["startsAt"] == alert["startsAt"] < ended["endsAt"]
    assert alert["generatorURL"] == "https://fleet.example/api/v1/alert-rules/TargetOffline"


def test_a_delivery_is_signed_as_mlflow_signs(here: State, clock: Clock, receiver: Receiver) -> None:
    tell(here, receiver)
    offline(here, clock, "robot-07")
    send_all(here)
    (told,) = receiver.received
    stamp = told.headers["x-edgeflow-timestamp"]
    signed = f"{told.delivery_id}.{stamp}.".encode() + told.body
    wanted = base64.b64encode(hmac.new(b"s3cret", signed, hashlib.sha256).digest()).decode()
    assert told.headers["x-edgeflow-signature"] == f"v1,{wanted}"
    assert stamp == str(int(clock.now.timestamp()))


def fenced(state: State, holder: str, clock: Clock) -> State:
    clock.pass_by(seconds=16)
    fence = lease.take(state, holder, alone_on=None)
    assert fence is not None
    return dataclasses.replace(state, database=state.database.fenced(fence))


def test_a_hub_that_dies_between_firing_and_sending(here: State, clock: Clock, receiver: Receiver) -> None:
    first = fenced(here, "a/1", clock)
    tell(first, receiver)
    offline(first, clock, "robot-07")
    assert receiver.received == []
    second = fenced(here, "b/2", clock)
    send_all(second)
    # The first one was only slow, and wants to go on.
    seen(here, "robot-07")
    with pytest.raises(FenceLostError):
        alerting.evaluate(first)
    clock.pass_by(seconds=2)
    alerting.evaluate(second)
    with pytest.raises(FenceLostError):
        deliveries.send_next(first, "ops")
    send_all(second)
    send_all(second)
    assert receiver.statuses() == ["firing", "resolved"]


def test_a_hub_that_dies_while_it_sends_repeats_the_same_delivery(
    here: State, clock: Clock, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fenced(here, "a/1", clock)
    tell(first, receiver)
    offline(first, clock, "robot-07")
    with monkeypatch.context() as patched:

        def dies(*_: object) -> None:
            raise KeyboardInterrupt

        patched.setattr(deliveries, "_finish", dies)
        with pytest.raises(KeyboardInterrupt):
            deliveries.send_next(first, "ops")
    second = fenced(here, "b/2", clock)
    send_all(second)
    assert len(receiver.received) == 1, "the claim of the dead one holds for a while"
    clock.pass_by(seconds=60)
    send_all(second)
    send_all(second)
    one, two = receiver.received
    assert (one.delivery_id, one.body) == (two.delivery_id, two.body)


# ---- retries, order, giving up


def outbox(state: State) -> list[models.Delivery]:
    with state.database.read() as session:
        return list(session.scalars(select(models.Delivery).order_by(models.Delivery.id)))


def test_what_failed_is_tried_again_and_in_order(here: State, clock: Clock, receiver: Receiver) -> None:
    tell(here, receiver)
    receiver.answers = [(500, {}), (429, {"Retry-After": "120"})]
    offline(here, clock, "robot-07")
    send_all(here)
    seen(here, "robot-07")
    clock.pass_by(seconds=2)
    alerting.evaluate(here)
    assert [row.state for row in outbox(here)] == ["waiting", "waiting"]
    clock.pass_by(seconds=3)
    send_all(here)  # the second try of the first; the end has to wait for it
    assert receiver.statuses() == ["firing", "firing"]
    assert "429" in outbox(here)[0].error
    clock.pass_by(seconds=119)
    send_all(here)
    assert len(receiver.received) == 2
    clock.pass_by(seconds=1)
    send_all(here)
    assert receiver.statuses() == ["firing", "firing", "firing", "resolved"]
    assert len({item.delivery_id for item in receiver.received[:3]}) == 1
    assert [(row.state, row.error) for row in outbox(here)] == [("sent", ""), ("sent", "")]


def test_it_is_given_up_after_a_day_and_what_follows_goes_on(
    here: State, clock: Clock, receiver: Receiver
) -> None:
    tell(here, receiver)
    offline(here, clock, "robot-07")
    seen(here, "robot-07")
    alerting.evaluate(here)
    clock.pass_by(seconds=2)
    alerting.evaluate(here)
    receiver.answers = [(500, {})] * 2
    send_all(here)
    clock.pass_by(hours=24)
    send_all(here)
    first, second = outbox(here)
    assert (first.state, second.state) == ("given_up", "sent")
    assert first.error.startswith("500")


def test_a_redirect_is_not_followed(here: State, receiver: Receiver) -> None:
    receiver.answers = [(302, {"Location": f"{receiver.url}/elsewhere"})]
    reply = posting.post(f"{receiver.url}/hook", b"{}", {}, allow_private=True)
    assert (reply.delivered, reply.status) == (False, 302)
    assert "not followed" in reply.text
    assert [item.path for item in receiver.received] == ["/hook"]


# ---- who is told of what


def test_routes_groups_and_the_default_receiver(here: State, clock: Clock, receiver: Receiver) -> None:
    tell(here, receiver, "arms", url=f"{receiver.url}/arms", matchers=["target=~arm.*"])
    tell(here, receiver, "rest", url=f"{receiver.url}/rest", is_default=True)
    tell(
        here, receiver, "each", url=f"{receiver.url}/each", matchers=["severity=warning"], group_by=["target"]
    )
    tell(here, receiver, "critical", matchers=["severity=critical"])
    offline(here, clock, "arm-1", "arm-2")
    send_all(here)
    told = {
        (item.path, tuple(sorted(alert["labels"]["target"] for alert in item.json["alerts"])))
        for item in receiver.received
    }
    assert told == {("/arms", ("arm-1", "arm-2")), ("/each", ("arm-1",)), ("/each", ("arm-2",))}
    receivers.delete(here, "each", actor="admin")
    seen(here, "arm-1", "arm-2")
    offline(here, clock, "leg-1")
    send_all(here)
    assert ("/rest", "firing") in {(item.path, item.json["status"]) for item in receiver.received}


def test_silences_hush_and_acknowledging_ends_reminders(
    here: State, clock: Clock, receiver: Receiver
) -> None:
    tell(here, receiver, pace=dataclasses.replace(QUICK, repeat=timedelta(minutes=10)))
    silence = silences.create(
        here, ["target=robot-07"], starts_at=None, ends_at=clock.now + timedelta(minutes=20),
        comment="moving it", actor="ada",
    )  # fmt: skip
    offline(here, clock, "robot-07")
    send_all(here)
    assert firing(here) == ["TargetOffline robot-07"]
    assert receiver.received == []
    silences.expire(here, silence.id, actor="ada")
    for _ in range(3):
        alerting.evaluate(here)
        send_all(here)
        clock.pass_by(minutes=6)
    assert receiver.statuses() == ["firing", "firing"], "told, and reminded once"
    with here.database.read() as session:
        number = session.scalars(select(models.Alert.id)).one()
    silences.acknowledge(here, number, actor="ada", why="battery")
    for _ in range(5):
        clock.pass_by(minutes=6)
        alerting.evaluate(here)
        send_all(here)
    assert len(receiver.received) == 2
    seen(here, "robot-07")
    for _ in range(2):
        alerting.evaluate(here)
        clock.pass_by(seconds=2)
    send_all(here)
    assert receiver.statuses()[-1] == "resolved"
    with pytest.raises(errors.ConflictError):
        silences.acknowledge(here, number, actor="ada", why="")
    with pytest.raises(errors.NotFoundError):
        silences.acknowledge(here, number + 1, actor="ada", why="")


def test_a_fleet_that_is_away_is_told_instead_of_its_devices(
    here: State, clock: Clock, receiver: Receiver
) -> None:
    tell(here, receiver)
    with here.database.write() as session:
        session.add(
            models.Fleet(
                name="lyon", selector="", targets=["r1", "r2", "r3"], created_at=clock.now, created_by="ada"
            )
        )
    offline(here, clock, "r1", "r2", "r3")
    send_all(here)
    assert firing(here) == ["FleetOffline", "TargetOffline r1", "TargetOffline r2", "TargetOffline r3"]
    assert [item.json["groupLabels"]["alertname"] for item in receiver.received] == ["FleetOffline"]


def test_an_alertmanager_is_told_again_and_again(here: State, clock: Clock, receiver: Receiver) -> None:
    tell(here, receiver, kind="alertmanager", url=receiver.url, secret=None)
    offline(here, clock, "robot-07")
    send_all(here)
    send_all(here)
    assert [item.path for item in receiver.received] == ["/api/v2/alerts"]
    (alert,) = receiver.received[0].json
    assert set(alert) == {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
    assert alert["endsAt"] == (clock.now + timedelta(minutes=4)).isoformat().replace("+00:00", "Z")
    clock.pass_by(seconds=60)
    send_all(here)
    assert len(receiver.received) == 2
    clock.pass_by(seconds=1)
    seen(here, "robot-07")
    alerting.evaluate(here)
    send_all(here)
    ended = receiver.received[2].json[0]["endsAt"]
    assert ended == clock.now.isoformat().replace("+00:00", "Z")
    for _ in range(8):
        clock.pass_by(seconds=60)
        seen(here, "robot-07")
        alerting.evaluate(here)
        send_all(here)
    assert len(receiver.received) == 7, "what has ended is told for five minutes"


# ---- facts from rows


def window(state: State, target: str, **change: Any) -> None:
    usual: dict[str, Any] = {
        "target_id": target, "boot": "b", "span": "raw", "start_at": state.now(), "end_at": state.now(),
        "received_at": state.now(), "seconds": 60.0, "model_name": "iris", "model_version": "1",
        "requests": 100, "failed": 0, "outcomes": {}, "latency_counts": [], "resources": {},
    }  # fmt: skip
    with state.database.write() as session:
        session.add(models.Window(**{**usual, "seq": next(_SEQ), **change}))


def only(state: State, *names: str) -> None:
    """These starter rules alone, at once."""
    for name, rule in rules.STARTERS.items():
        changed = dataclasses.replace(rule, enabled=name in names, hold=timedelta(), keep=timedelta())
        alert_rules.put(state, changed, {}, actor="ada")


def test_windows_of_telemetry_make_alerts(here: State, clock: Clock) -> None:
    only(here, "ErrorRate", "QueueFull", "Latency", "DiskLow", "TemperatureHigh", "TelemetryDropped")
    seen(here, "robot-07", "robot-08")
    for _ in range(2):
        window(here, "robot-07", dropped=3)
        window(here, "robot-08", failed=6, outcomes={"ok": 94, "rejected": 6}, dropped=3)
        clock.pass_by(seconds=20)
    slow = [0] * 14 + [100, 0]
    said = {"disk_free_ratio": 0.01, "disk_free_bytes": 2**20, "temperature_c": 99.5}
    window(here, "robot-08", latency_counts=slow, resources=said, dropped=4)
    assert alerting.evaluate(here)
    assert firing(here) == [
        "DiskLow robot-08", "Latency robot-08", "QueueFull robot-08", "TelemetryDropped robot-08",
        "TemperatureHigh robot-08",
    ]  # fmt: skip
    window(here, "robot-08", failed=100)
    alerting.evaluate(here)
    assert "ErrorRate robot-08" in firing(here)
    assert not alerting.evaluate(here), "a look that finds nothing new writes nothing"
    clock.pass_by(minutes=31)
    seen(here, "robot-07", "robot-08")
    alerting.evaluate(here)
    assert firing(here) == []


def test_a_spool_that_is_emptied_is_no_news(here: State, clock: Clock) -> None:
    only(here, "ErrorRate")
    seen(here, "robot-07")
    window(here, "robot-07", failed=100, end_at=clock.now - timedelta(hours=3))
    alerting.evaluate(here)
    assert firing(here) == []


def test_drift_wrong_versions_and_stopped_rollouts(here: State, clock: Clock) -> None:
    only(here, "TargetDrift", "WrongVersion", "RolloutStopped", "TelemetryMissing")
    one, two = add_bundle(here, "1"), add_bundle(here, "2")
    seen(here, "robot-07", "robot-08", actual_digest=one.digest, generation=1)
    window(here, "robot-07")
    now = clock.now
    with here.database.write() as session:
        session.add(
            models.Drift(
                scope="target", scope_id="robot-07", digest=one.digest, baseline_sha256="b", feature="width",
                kind="input", model_name="iris", model_version="1", status="drift", alarm=True,
                signals=[{"status": "ok", "text": "no"}, {"status": "drift", "text": "the mean moved"}],
                from_at=now, to_at=now, updated_at=now,
            )
        )  # fmt: skip
        session.add(
            models.Deployment(
                id="d",
                name="iris",
                live_name="iris",
                rollout_id="r",
                created_at=now,
                created_by="a",
                updated_at=now,
            )
        )
        session.flush()
        session.add(
            models.Rollout(
                id="r", deployment_id="d", number=1, bundle_id=two.id, model_uri="models:/iris/2",
                state="paused", why="2 of 3 failed", created_at=now, created_by="a",
            )
        )  # fmt: skip
        session.flush()
        session.add(models.RolloutWave(rollout_id="r", number=1, state="failed"))
        session.add(
            models.Execution(
                id="e", target_id="robot-08", deployment_id="d", rollout_id="r", generation=1,
                action="install", state="deployed", created_at=now, updated_at=now, finished_at=now,
            )
        )  # fmt: skip
    alerting.evaluate(here)
    assert firing(here) == ["RolloutStopped", "TargetDrift robot-07", "WrongVersion robot-08"]
    # One that gave the model up after its trial serves another for that; one that refused it never had it.
    for end, others in (("rolled_back", ["WrongVersion robot-08"]), ("rejected", [])):
        with here.database.write() as session:
            ended = session.get_one(models.Execution, "e")
            ended.state, ended.reason = end, "crash_loop"
        clock.pass_by(minutes=10)
        seen(here, "robot-07", "robot-08", generation=1)
        alerting.evaluate(here)
        assert [name for name in firing(here) if name.startswith("Wrong")] == others
    with here.database.read() as session:
        drift = session.scalars(select(models.Alert).where(models.Alert.rule == "TargetDrift")).one()
    assert drift.annotations["description"] == "width: the mean moved"
    clock.pass_by(minutes=16)
    seen(here, "robot-07", "robot-08", actual_digest=two.digest)
    with here.database.write() as session:
        session.execute(update(models.RolloutWave).values(state="running"))
    alerting.evaluate(here)
    assert firing(here) == ["TelemetryMissing robot-07"]


def test_a_look_costs_the_same_for_any_number_of_devices(here: State, clock: Clock) -> None:
    def statements() -> int:
        count = 0

        def counted(*_: object) -> None:
            nonlocal count
            count += 1

        event.listen(here.database.engine, "before_cursor_execute", counted)
        alerting.evaluate(here)
        event.remove(here.database.engine, "before_cursor_execute", counted)
        return count

    seen(here, *(f"r{number}" for number in range(3)))
    few = statements()
    seen(here, *(f"r{number}" for number in range(40)))
    assert statements() == few < 40


# ---- rules and receivers as people see them


def test_a_starter_rule_can_be_changed_and_be_as_it_was(
    here: State, clock: Clock, receiver: Receiver
) -> None:
    tell(here, receiver)
    offline(here, clock, "robot-07")
    rule = dataclasses.replace(rules.STARTERS["TargetOffline"], enabled=False)
    alert_rules.put(here, rule, {}, actor="ada")
    alerting.evaluate(here)
    assert firing(here) == [], "a rule that is switched off lets its alerts go"
    alert_rules.delete(here, "TargetOffline", actor="ada")
    with here.database.read() as session:
        assert alert_rules.get(session, "TargetOffline").enabled
        with pytest.raises(errors.NotFoundError, match="did you mean 'TargetOffline'"):
            alert_rules.get(session, "TargetOfline")
    with pytest.raises(errors.ConflictError, match="enabled"):
        alert_rules.delete(here, "TargetOffline", actor="ada")


def test_secrets_are_sealed_kept_and_bound_to_their_place(here: State, receiver: Receiver) -> None:
    tell(here, receiver, url=f"{receiver.url}/token-of-the-url", secret="sign-with-this")
    with here.database.read() as session:
        row = receivers.get(session, "ops")
    assert b"token-of-the-url" not in row.sealed
    assert b"sign-with-this" not in row.sealed
    assert row.address == receiver.url
    tell(here, receiver, url=None, secret=None, is_default=True)
    with here.database.read() as session:
        kept = receivers.secrets(here, receivers.get(session, "ops"))
    assert kept == receivers.Secrets(url=f"{receiver.url}/token-of-the-url", secret="sign-with-this")
    row.name = "other"
    assert receivers.secrets(here, row) is None
    row.sealed = b""
    assert "sealed with keys" in deliveries.send(here, row, "id", b"{}").text


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"kind": "pigeon"}, "one of"),
    ({"url": None}, "needs a url"),
    ({"url": "ftp://host/x"}, "http(s)"),
    ({"url": "http://user:password@host/x"}, "http(s)"),
    ({"url": "http://host/a b"}, "http(s)"),
    ({"url": "http://host:0/"}, "no port"),
    ({"url": "http://127.0.0.1/"}, "private"),
    ({"url": "http://localhost:9/"}, "private"),
    ({"url": "http://[::ffff:10.0.0.1]/"}, "private"),
    ({"url": "http://[64:ff9b::7f00:1]/"}, "private"),
    ({"url": "http://169.254.169.254/latest"}, "no address of a receiver"),
    ({"kind": "slack", "secret": "x"}, "no secret"),
    ({"matchers": ["severity"]}, "cannot read the matcher"),
    ({"group_by": ["a b"]}, "no label"),
    ({"kind": "email", "url": None}, "needs host"),
    ({"kind": "email", "url": None, "mail": receivers.Mail(host="m.example")}, "addresses in to"),
    (
        {"kind": "email", "url": None, "mail": receivers.Mail(host="m.x", sender="a@b", to=["x\n@b"])},
        "no mail address",
    ),
    (
        {
            "kind": "email", "url": None, "password": "p",
            "mail": receivers.Mail(host="m.example", sender="a@b", to=["a@b"], username="u", tls="none"),
        },
        "without TLS",
    ),
]  # fmt: skip


def test_receivers_that_cannot_be(state: State) -> None:
    for change, words in IMPOSSIBLE:
        wanted = receivers.Wanted(**{"kind": "webhook", "url": "https://hooks.example/x", **change})
        with pytest.raises(errors.InvalidError) as refused:
            receivers.put(state, "ops", wanted, actor="admin")
        assert words in str(refused.value)


def test_old_things_are_forgotten(here: State, clock: Clock, receiver: Receiver) -> None:
    tell(here, receiver)
    offline(here, clock, "robot-07")
    seen(here, "robot-07")
    alerting.evaluate(here)
    clock.pass_by(seconds=2)
    alerting.evaluate(here)
    send_all(here)
    clock.pass_by(days=29)
    alerting.forget_old(here)
    assert len(outbox(here)) == 2
    clock.pass_by(days=2)
    alerting.forget_old(here)
    assert outbox(here) == []
    assert Reply(delivered=True).status == 0
