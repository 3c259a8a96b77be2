"""Alerts, decided: their life, who is told when, silences, inhibition, rules and what they find."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import alert_findings, alert_rules, alerts, deliveries, matchers
from edgeflow_mlflow.domain.alert_facts import (
    DriftFact,
    Facts,
    Finding,
    Load,
    Newest,
    RolloutFact,
    TargetFact,
)
from edgeflow_mlflow.domain.alert_groups import Episode, Group, Pace, Reason, turn
from edgeflow_mlflow.domain.alert_rules import STARTER, STARTERS, Rule
from edgeflow_mlflow.domain.alerts import TABLE, Life, Phase, Sign, Timing, step
from edgeflow_mlflow.domain.matchers import Inhibitor, Silence

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
SECONDS = st.integers(0, 120).map(lambda value: timedelta(seconds=value))
TIMING = st.builds(Timing, hold=SECONDS, keep=SECONDS)
LOOKS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=60)


def lives(looks: list[tuple[int, bool]], timing: Timing) -> list[tuple[datetime, bool, Life]]:
    life, now, found = Life(), NOW, []
    for seconds, holds in looks:
        now += timedelta(seconds=seconds)
        life = step(life, holds, now, timing)
        found.append((now, holds, life))
    return found


# ---- the life of an alert


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(itertools.product(Phase, Sign))


@given(LOOKS, TIMING)
def test_it_fires_only_after_it_has_held_for_long_enough(
    looks: list[tuple[int, bool]], timing: Timing
) -> None:
    before = Life()
    for now, holds, life in lives(looks, timing):
        if life.phase is Phase.FIRING and before.phase is not Phase.FIRING:
            assert holds
            assert life.fired_at == now
            assert life.active_at is not None
            assert now - life.active_at >= timing.hold
        before = life


@given(LOOKS, TIMING)
def test_it_is_resolved_only_after_it_has_not_held_for_long_enough(
    looks: list[tuple[int, bool]], timing: Timing
) -> None:
    before, gone = Life(), None
    for now, holds, life in lives(looks, timing):
        gone = None if holds else gone or now
        if before.phase is Phase.FIRING:
            ended = gone is not None and now - gone >= timing.keep
            assert (life.phase is Phase.RESOLVED) == ended
        before = life


@given(LOOKS, TIMING)
def test_looking_twice_changes_nothing(looks: list[tuple[int, bool]], timing: Timing) -> None:
    for now, holds, life in lives(looks, timing):
        assert step(life, holds, now, timing) == life


@given(LOOKS, TIMING)
def test_phases_follow_one_another(looks: list[tuple[int, bool]], timing: Timing) -> None:
    before = Phase.INACTIVE
    for _, _, life in lives(looks, timing):
        assert life.phase in {TABLE[before, sign] for sign in Sign}
        assert (life.phase is Phase.RESOLVED) == (life.resolved_at is not None)
        assert (life.phase in (Phase.FIRING, Phase.RESOLVED)) == (life.fired_at is not None)
        before = life.phase


def test_what_nobody_has_looked_at_meanwhile_begins_anew() -> None:
    timing = Timing(hold=timedelta(minutes=5), gap=timedelta(minutes=1))
    pending = step(Life(), True, NOW, timing)
    later = step(pending, True, NOW + timedelta(minutes=6), timing)
    assert (later.phase, later.active_at) == (Phase.PENDING, NOW + timedelta(minutes=6))


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5))
def test_the_fingerprint_is_of_the_labels_and_not_of_their_order(labels: dict[str, str]) -> None:
    assert alerts.fingerprint(labels) == alerts.fingerprint(dict(reversed(labels.items())))
    assert alerts.fingerprint(labels) != alerts.fingerprint({**labels, "another": "x"})
    assert re.fullmatch(r"[0-9a-f]{16}", alerts.fingerprint(labels))


def test_labels_that_look_alike_when_joined_differ() -> None:
    assert alerts.fingerprint({"a": "b1:c"}) != alerts.fingerprint({"a": "b", "c": ""})


# ---- who is told when

PACE = Pace(wait=timedelta(seconds=30), interval=timedelta(minutes=5), repeat=timedelta(hours=4))


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 400),
            st.sets(st.integers(1, 4)),  # those that fire
            st.sets(st.integers(1, 4)),  # those that are muted
            st.sets(st.integers(1, 4)),  # those that are acknowledged
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_every_episode_is_told_once_and_ended_once(
    looks: list[tuple[int, set[int], set[int], set[int]]], send_resolved: bool
) -> None:
    pace = Pace(wait=PACE.wait, interval=PACE.interval, repeat=PACE.repeat, send_resolved=send_resolved)
    group, now, before, told_at = Group(), NOW, set(), None
    numbers: dict[int, int] = {}
    counter = itertools.count(1)
    began: list[int] = []
    ended: list[int] = []
    for seconds, firing, muted, acknowledged in looks:
        now += timedelta(seconds=seconds)
        for alert in firing - before:
            numbers[alert] = next(counter)  # each time that it fires is an episode of its own
        before = firing
        members = [
            Episode(id=numbers[alert], muted=alert in muted, acknowledged=alert in acknowledged)
            for alert in firing
        ]
        known = group.told
        found = turn(group, members, {item.id for item in members}, now, pace)
        if found.reason is not None:
            assert told_at is None or now - told_at >= pace.interval
            told_at = now
            began += [item for item in found.firing if item not in known]
            ended += found.resolved
            assert not set(found.firing) & {item.id for item in members if item.muted}
            assert found.reason is not Reason.REPEATED or not {item.id for item in members} <= {
                numbers[item] for item in firing & acknowledged
            }
        else:
            assert not found.firing
            assert not found.resolved
        group = found.group or Group()
        if found.group is None:
            assert not known - {item.id for item in members} or not send_resolved
    assert len(began) == len(set(began))
    assert len(ended) == len(set(ended))
    assert set(ended) <= set(began), "nobody hears of the end of what they were not told of"
    assert send_resolved or not ended


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_a_group_is_told_after_a_wait_then_of_its_end_then_forgotten() -> None:
    one, two = Episode(id=1), Episode(id=2)
    first = turn(Group(), [one], {1}, at(0), PACE)
    assert (first.reason, first.group) == (None, Group(news_at=at(0)))
    assert first.group is not None
    both = turn(first.group, [one, two], {1, 2}, at(30), PACE)
    assert (both.reason, both.firing) == (Reason.FIRED, (1, 2))
    assert both.group is not None
    waits = turn(both.group, [two], {2}, at(60), PACE)
    assert waits.reason is None
    assert waits.group is not None
    some = turn(waits.group, [two], {2}, at(330), PACE)
    assert (some.reason, some.firing, some.resolved) == (Reason.CHANGED, (2,), (1,))
    assert some.group is not None
    again = turn(some.group, [two], {2}, at(330 + 4 * 3600), PACE)
    assert (again.reason, again.firing) == (Reason.REPEATED, (2,))
    quiet = turn(some.group, [Episode(id=2, acknowledged=True)], {2}, at(330 + 4 * 3600), PACE)
    assert quiet.reason is None
    assert again.group is not None
    gone = turn(turn(again.group, [], (), at(20000), PACE).group or Group(), [], (), at(20030), PACE)
    assert (gone.reason, gone.resolved) == (Reason.RESOLVED, (2,))
    assert gone.group is not None
    assert turn(gone.group, [], (), at(30000), PACE).group is None


def test_an_alert_that_is_silenced_while_it_fires_is_still_resolved_for_who_was_told() -> None:
    told = Group(told=frozenset({1}), told_at=at(0))
    assert turn(told, [Episode(id=1, muted=True)], {1}, at(400), PACE).reason is None
    ended = turn(Group(told=frozenset({1}), told_at=at(0), news_at=at(400)), [], (), at(430), PACE)
    assert (ended.reason, ended.resolved) == (Reason.RESOLVED, (1,))


def test_what_fires_and_ends_within_the_wait_is_not_told() -> None:
    first = turn(Group(), [Episode(id=1)], {1}, at(0), PACE)
    assert first.group is not None
    assert turn(first.group, [], (), at(29), PACE).group is None


# ---- matchers, silences, inhibition


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ('severity="critical"', {"severity": "critical"}, True),
        ("severity=critical", {"severity": "info"}, False),
        ("severity != info", {"severity": "critical"}, True),
        ('target=~"robot-0.*"', {"target": "robot-07"}, True),
        ("target=~robot", {"target": "robot-07"}, False),
        ("target!~robot-1.|robot-2.", {"target": "robot-07"}, True),
        ("site=", {}, True),
        ("fleet=lyon", {"fleet": "all,lyon"}, True),
        ("fleet!=lyon", {"fleet": "all,lyon"}, False),
        ("fleet=~ly.n", {"fleet": "all,lyon"}, True),
        (r"target=~robot\(1\)", {"target": "robot(1)"}, True),
        ("target=~[a-c(]+", {"target": "a(b"}, True),
    ],
)
def test_matchers(text: str, labels: dict[str, str], expected: bool) -> None:
    (found,) = matchers.parse([text])
    assert found.matches(labels) is expected
    assert matchers.parse([str(found)]) == (found,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "severity",
        "a b=c",
        "9=x",
        "a=~(a+)+",
        "a=~(a|a)(a|a)",
        "a=~a?a?a?a?",
        "a=~[",
        "a=~*",
        "a=" + "x" * 300,
    ],
)
def test_matchers_that_cannot_be(text: str) -> None:
    with pytest.raises(errors.InvalidError):
        matchers.parse([text])


def test_a_silence_ends_by_itself_and_covers_not_everything() -> None:
    silence = Silence(id="s", matchers=matchers.parse(["target=robot-07"]), starts_at=at(0), ends_at=at(60))
    assert [silence.covers({"target": "robot-07"}, at(moment)) for moment in (-1, 0, 59, 60)] == [
        False, True, True, False,
    ]  # fmt: skip
    for texts in ([], ["severity!=x"], ["target=~.*"]):
        with pytest.raises(errors.InvalidError):
            matchers.check_silence(matchers.parse(texts))


def test_a_fleet_that_is_offline_speaks_for_its_devices_and_they_for_their_other_alerts() -> None:
    fleet = {"kind": "fleet_offline", "fleet": "lyon"}
    device = {"kind": "target_offline", "target": "robot-07", "fleet": "all,lyon"}
    disk = {"kind": "disk_low", "target": "robot-07"}
    other = {"kind": "disk_low", "target": "robot-08"}
    found = Inhibitor([fleet, device, disk, other])
    assert [found.hushes(labels) for labels in (fleet, device, disk, other)] == [False, True, True, False]
    alone = Inhibitor([{"kind": "fleet_offline", "fleet": "paris"}, device])
    assert not alone.hushes(device)
    assert not Inhibitor([{"kind": "fleet_offline"}]).hushes({"kind": "target_offline", "target": "x"})


# ---- rules


def test_the_starter_set_is_on_and_every_kind_has_a_finder() -> None:
    assert all(rule.enabled for rule in STARTER)
    assert len(STARTERS) == len(STARTER)
    assert set(alert_findings._FINDERS) == set(alert_rules.alert_kinds.KINDS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "9lives"}, "cannot name a rule"),
        ({"kind": "eror_rate"}, "did you mean 'error_rate'"),
        ({"parameters": {"abov": 0.1}}, "did you mean 'above'"),
        ({"parameters": {"above": 2}}, "do not fit"),
        ({"parameters": {"minutes": 0}}, "do not fit"),
        ({"parameters": {"per": "robot"}}, "do not fit"),
        ({"kind": "throughput"}, "below_per_s or above_per_s"),
        ({"selector": "*"}, "cannot read"),
        ({"kind": "drift", "parameters": {"scope": "fleet"}, "selector": "site=lyon"}, "selector"),
        ({"kind": "rollout_stopped", "selector": "site=lyon"}, "selector"),
        ({"kind": "fleet_offline", "deployment": "iris"}, "deployment"),
        ({"hold_s": -1}, "for_s"),
        ({"keep_s": 10**9}, "keep_firing_for_s"),
        ({"severity": "fatal"}, "severity"),
        ({"labels": {"target": "x"}}, "cannot be a label"),
        ({"labels": {"a-b": "x"}}, "cannot be a label"),
        ({"annotations": {"summary": "{valeu}"}}, "{value}"),
        ({"annotations": {"summary": "x" * 2000}}, "over 1024"),
    ],
)
def test_rules_that_cannot_be(change: dict[str, Any], words: str) -> None:
    given_: dict[str, Any] = {"name": "Mine", "kind": "error_rate", "parameters": {}, **change}
    with pytest.raises(errors.InvalidError, match=re.escape(words)):
        alert_rules.rule(**given_)


def test_places_are_filled_and_nothing_else_is() -> None:
    assert alert_rules.fill("{a} {b} {{a}} {0} {a.b}", {"a": "{b}"}) == "{b}  {{b}} {0} {a.b}"


# ---- what rules find


def device(name: str = "robot-07", **change: Any) -> TargetFact:
    given_: dict[str, Any] = {"last_seen_at": NOW, "digest": "d1", "model": "iris", "version": "1"}
    return TargetFact(id=name, **{**given_, **change})


def facts(*targets: TargetFact, **more: Any) -> Facts:
    return Facts(now=NOW, targets={item.id: item for item in targets}, **more)


def found(rule: Rule, given_: Facts) -> list[Finding]:
    return alert_findings.find(rule, given_)


def made(kind: str, parameters: dict[str, Any] | None = None, **more: Any) -> Rule:
    return alert_rules.rule(name="Mine", kind=kind, parameters=parameters or {}, **more)


def load(**change: Any) -> Load:
    usual: dict[str, Any] = {"target": "robot-07", "deployment": "iris", "model": "iris", "version": "1"}
    return Load(**{**usual, "requests": 100, **change})


QUICK, SLOW = (0,) * 3 + (100,) + (0,) * 12, (0,) * 13 + (100, 0, 0)


@pytest.mark.parametrize(
    ("rule", "given_", "labels"),
    [
        (made("error_rate"), facts(device(), loads={5: [load(failed=6)]}), [{"target": "robot-07"}]),
        (made("error_rate"), facts(device(), loads={5: [load(failed=5)]}), []),
        (made("error_rate"), facts(device(), loads={5: [load(requests=49, failed=49)]}), []),
        (
            made("error_rate", {"per": "model"}),
            facts(device(), device("b"), loads={5: [load(failed=0), load(target="b", failed=20)]}),
            [{"model": "iris", "version": "1"}],
        ),
        (made("error_rate", selector="site=x"), facts(device(), loads={5: [load(failed=99)]}), []),
        (
            made("error_rate", selector="site=x"),
            facts(device(known={"site": "x"}), loads={5: [load(failed=99)]}),
            [{"target": "robot-07"}],
        ),
        (made("error_rate", model="other"), facts(device(), loads={5: [load(failed=99)]}), []),
        (made("error_rate", deployment="iris"), facts(device(), loads={5: [load(failed=99)]}), [{}]),
        (made("latency"), facts(device(), loads={5: [load(latency=SLOW)]}), [{"target": "robot-07"}]),
        (made("latency"), facts(device(), loads={5: [load(latency=QUICK)]}), []),
        (made("throughput", {"below_per_s": 1}), facts(device(deployment="iris")), [{"deployment": "iris"}]),
        (made("throughput", {"below_per_s": 1}), facts(device(deployment="iris", online=False)), []),
        (made("throughput", {"above_per_s": 0.1}), facts(device(), loads={10: [load(requests=61)]}), [{}]),
        (made("target_offline"), facts(device(online=False)), [{"target": "robot-07"}]),
        (made("target_offline"), facts(device(online=False, expected=False)), []),
        (made("target_offline"), facts(device(online=False, last_seen_at=None)), []),
        (
            made("fleet_offline"),
            facts(*(device(f"r{i}", online=i > 1, fleets=("lyon",)) for i in range(4))),
            [{"fleet": "lyon"}],
        ),
        (made("fleet_offline"), facts(*(device(f"r{i}", online=i > 0, fleets=("x",)) for i in range(4))), []),
        (made("fleet_offline"), facts(*(device(f"r{i}", online=False, fleets=("x",)) for i in range(2))), []),
        (made("wrong_version"), facts(device(wanted="d2")), [{"target": "robot-07"}]),
        (made("wrong_version"), facts(device(wanted="d1")), []),
        (made("wrong_version"), facts(device(wanted="d2", online=False)), []),
        (made("queue_full"), facts(device(), loads={5: [load(rejected=2)]}), [{"target": "robot-07"}]),
        (made("queue_full"), facts(device(), loads={5: [load(rejected=1)]}), []),
        (made("disk_low"), facts(device(), newest={15: {"robot-07": Newest(disk_free_ratio=0.04)}}), [{}]),
        (made("disk_low"), facts(device(), newest={15: {"robot-07": Newest()}}), []),
        (
            made("disk_low", {"below_mb": 100}),
            facts(device(), newest={15: {"robot-07": Newest(disk_free_bytes=1.0)}}),
            [{}],
        ),
        (
            made("temperature_high"),
            facts(device(), newest={15: {"robot-07": Newest(temperature_c=86)}}),
            [{}],
        ),
        (made("telemetry_dropped"), facts(device(), newest={30: {"robot-07": Newest(dropped=1)}}), [{}]),
        (made("telemetry_missing"), facts(device(), speakers=frozenset({"robot-07"})), [{}]),
        (made("telemetry_missing"), facts(device()), []),
        (
            made("telemetry_missing"),
            facts(device(), speakers=frozenset({"robot-07"}), heard={15: frozenset({"robot-07"})}),
            [],
        ),
    ],
)
def test_what_a_rule_finds(rule: Rule, given_: Facts, labels: list[dict[str, str]]) -> None:
    assert len(found(rule, given_)) == len(labels)
    for finding, wanted in zip(found(rule, given_), labels, strict=True):
        assert wanted.items() <= finding.labels.items()
        assert set(finding.words) | set(finding.labels) <= alert_rules.alert_kinds.KINDS[rule.kind].places | {
            "target", "fleet",
        }  # fmt: skip


def drifted(**change: Any) -> DriftFact:
    usual: dict[str, Any] = {
        "scope": "target", "scope_id": "robot-07", "feature": "width", "kind": "input", "model": "iris",
        "version": "1", "digest": "d1", "signal": "the mean moved by 3 standard deviations",
    }  # fmt: skip
    return DriftFact(**{**usual, **change})


def test_drift_is_one_alert_for_all_features_of_a_device() -> None:
    rule = STARTERS["TargetDrift"]
    both = facts(device(), drift=[drifted(), drifted(feature="length", kind="output")])
    (finding,) = found(rule, both)
    assert alert_findings.identity(rule, finding) == {
        "alertname": "TargetDrift", "scope": "target", "target": "robot-07", "model": "iris", "version": "1",
    }  # fmt: skip
    texts = alert_findings.texts(rule, finding)
    assert "length, width" in texts["summary"]
    assert "width: the mean moved by 3 standard deviations" in texts["description"]
    assert found(made("drift", {"of": "outputs", "feature": "width"}), both) == []
    assert found(rule, facts(device(digest="d2"), drift=[drifted()])) == [], (
        "it serves another version by now"
    )
    pooled = facts(
        device(), drift=[drifted(scope="fleet", scope_id="lyon"), drifted(scope="model", scope_id="")]
    )
    assert [item.labels["fleet"] for item in found(STARTERS["FleetDrift"], pooled)] == ["lyon"]
    assert len(found(STARTERS["ModelDrift"], pooled)) == 1
    assert found(rule, pooled) == []


def test_a_rollout_that_failed_is_news_for_a_while() -> None:
    def failed(minutes: int) -> RolloutFact:
        return RolloutFact(
            deployment="iris", number=2, model="iris", version="2", state="failed", why="errors",
            finished_at=NOW - timedelta(minutes=minutes),
        )  # fmt: skip

    (finding,) = found(STARTERS["RolloutStopped"], facts(rollouts=[failed(59)]))
    assert finding.labels["rollout"] == "2"
    assert found(STARTERS["RolloutStopped"], facts(rollouts=[failed(61)])) == []


def test_a_devices_labels_are_labels_of_its_alerts_but_do_not_name_them() -> None:
    rule = made("target_offline", labels={"team": "arms"})
    (one,) = found(
        rule, facts(device(online=False, labels={"site.x": "lyon", "kind": "me"}, fleets=("a", "b")))
    )
    assert alert_findings.labels(rule, one) == {
        "alertname": "Mine", "kind": "target_offline", "severity": "warning", "target": "robot-07",
        "site_x": "lyon", "fleet": "a,b", "team": "arms",
    }  # fmt: skip
    (moved,) = found(rule, facts(device(online=False)))
    assert alert_findings.fingerprint(rule, one) == alert_findings.fingerprint(rule, moved)


@given(
    st.lists(st.integers(0, 10**6), min_size=16, max_size=16), st.floats(0.01, 0.99), st.floats(0.01, 0.99)
)
def test_quantiles_rise_and_stay_within_the_buckets(counts: list[int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert 0 <= alert_findings.quantile(counts, low) <= alert_findings.quantile(counts, high) <= 10


# ---- how long to wait


@given(st.integers(1, 100), st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)))
def test_the_next_try_comes_and_comes_not_at_once(attempts: int, asked: float | None) -> None:
    assert timedelta(seconds=5) <= deliveries.wait(attempts, asked) <= timedelta(hours=1)


def test_a_receiver_may_ask_for_patience() -> None:
    assert [deliveries.wait(number).total_seconds() for number in (1, 2, 3, 20)] == [5, 10, 20, 900]
    assert deliveries.wait(1, 120).total_seconds() == 120
    assert deliveries.wait(9, 1).total_seconds() == 900
