"""What the rules find: facts about devices, rollouts and drift go in, what holds now comes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from edgeflow_agent.wire.telemetry import LATENCY_BUCKETS
from edgeflow_mlflow.domain import alert_kinds, alerts, selectors
from edgeflow_mlflow.domain.alert_facts import (
    DriftFact,
    Facts,
    Finding,
    Load,
    Newest,
    RolloutFact,
    TargetFact,
)
from edgeflow_mlflow.domain.alert_rules import RESERVED, Rule, fill

_ODD = re.compile(r"[^a-zA-Z0-9_]")
_SHOWN = 8
_LONGEST = 1024


# How far back the newest window of a device may lie.
NEWEST_M = 15


def find(rule: Rule, facts: Facts) -> list[Finding]:
    """Everything that a rule finds now."""
    scoped = _Scope(rule, facts)
    return list(_FINDERS[rule.kind](rule.parameters, scoped))


def identity(rule: Rule, finding: Finding) -> dict[str, str]:
    """The labels that name an alert; its fingerprint is theirs."""
    return {"alertname": rule.name, **{name: value for name, value in finding.labels.items() if value}}


def labels(rule: Rule, finding: Finding) -> dict[str, str]:
    """All labels: the device's own, the rule's, and those that name the alert, the later counting more."""
    own = {_ODD.sub("_", name): value for name, value in finding.own.items()}
    own = {name: value for name, value in own.items() if name not in RESERVED and not name[0].isdigit()}
    fleets = {"fleet": ",".join(finding.fleets)}
    named = {**own, **fleets, **rule.labels, "kind": rule.kind, "severity": rule.severity.value}
    return {**{name: value for name, value in named.items() if value}, **identity(rule, finding)}


def texts(rule: Rule, finding: Finding) -> dict[str, str]:
    """The annotations with their places filled."""
    words = {**rule.labels, "fleet": ",".join(finding.fleets), **finding.labels, **finding.words}
    words |= {"severity": rule.severity.value, "alertname": rule.name}
    return {name: fill(text, words)[:_LONGEST] for name, text in rule.annotations.items()}


def fingerprint(rule: Rule, finding: Finding) -> str:
    """The name of the alert that a finding is."""
    return alerts.fingerprint(identity(rule, finding))


class _Scope:
    """The facts that a rule is about."""

    def __init__(self, rule: Rule, facts: Facts) -> None:
        self.facts = facts
        self._rule = rule
        requirements = selectors.parse(rule.selector) if rule.selector else ()
        self._chosen = {
            item.id: item for item in facts.targets.values() if selectors.matches(requirements, item.known)
        }

    def targets(self) -> Iterator[TargetFact]:
        """Those that are to be there."""
        for item in self._chosen.values():
            if item.expected and self._is_about(item.model, item.deployment):
                yield item

    def loads(self, minutes: int) -> Iterator[Load]:
        """The sums of their windows."""
        for load in self.facts.loads.get(minutes, ()):
            if load.target in self._chosen and self._is_about(load.model, load.deployment):
                yield load

    def drift(self) -> Iterator[DriftFact]:
        """What drifts where it is still served."""
        served = {item.digest for item in self.facts.targets.values()}
        for fact in self.facts.drift:
            target = self._chosen.get(fact.scope_id)
            if fact.scope == "target":
                if (
                    target is not None
                    and target.digest == fact.digest
                    and self._is_about(fact.model, target.deployment)
                ):
                    yield fact
            elif fact.digest in served and self._is_about(fact.model, ""):
                yield fact

    def rollouts(self) -> Iterator[RolloutFact]:
        """Of its deployment and model."""
        for fact in self.facts.rollouts:
            if self._is_about(fact.model, fact.deployment):
                yield fact

    def of_target(self, item: TargetFact, words: Mapping[str, str] | None = None) -> Finding:
        """A finding about a device."""
        return Finding(
            labels={"target": item.id},
            words={
                "deployment": item.deployment,
                "model": item.model,
                "version": item.version,
                **(words or {}),
            },
            own=item.labels,
            fleets=item.fleets,
        )

    def _is_about(self, model: str, deployment: str) -> bool:
        rule = self._rule
        return (not rule.model or rule.model == model) and (
            not rule.deployment or rule.deployment == deployment
        )


# ---- one function for each kind


def _drift(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.DriftParameters)
    kinds = {"inputs": {"input"}, "outputs": {"output"}}.get(wanted.of, {"input", "output"})
    found: dict[tuple[str, str, str], list[DriftFact]] = {}
    for fact in scope.drift():
        is_meant = fact.scope == wanted.scope and fact.kind in kinds
        if is_meant and wanted.feature in ("", fact.feature):
            found.setdefault((fact.scope_id, fact.model, fact.version), []).append(fact)
    for (scope_id, model, version), facts in sorted(found.items()):
        facts.sort(key=lambda item: item.feature)
        names = [item.feature for item in facts]
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        target = scope.facts.targets.get(scope_id) if wanted.scope == "target" else None
        yield Finding(
            labels={
                "scope": wanted.scope,
                "target": scope_id if wanted.scope == "target" else "",
                "fleet": scope_id if wanted.scope == "fleet" else "",
                "model": model,
                "version": version,
            },
            words={
                "value": str(len(names)),
                "features": ", ".join(names[:_SHOWN]) + more,
                "signal": "; ".join(
                    f"{item.feature}: {item.signal}" for item in facts[:_SHOWN] if item.signal
                ),
            },
            own=target.labels if target else {},
            fleets=target.fleets if target else (),
        )


def _summed(loads: Iterable[Load], per: str) -> dict[tuple[str, str, str, str], Load]:
    """By device and model version, by deployment, or by model version."""
    sums: dict[tuple[str, str, str, str], Load] = {}
    for load in loads:
        key = {
            "target": (load.target, "", load.model, load.version),
            "deployment": ("", load.deployment, "", ""),
            "model": ("", "", load.model, load.version),
        }[per]
        if not any(key):
            continue
        before = sums.get(key)
        sums[key] = Load(
            target=key[0],
            deployment=key[1],
            model=key[2],
            version=key[3],
            requests=load.requests + (before.requests if before else 0),
            failed=load.failed + (before.failed if before else 0),
            rejected=load.rejected + (before.rejected if before else 0),
            latency=_added(load.latency, before.latency if before else ()),
        )
    return sums


def _added(one: tuple[float, ...], other: tuple[float, ...]) -> tuple[float, ...]:
    if not one or not other:
        return one or other
    return tuple(left + right for left, right in zip(one, other, strict=True))


def _of_load(scope: _Scope, load: Load, words: Mapping[str, str]) -> Finding:
    target = scope.facts.targets.get(load.target)
    return Finding(
        labels={
            "target": load.target,
            "deployment": load.deployment,
            "model": load.model,
            "version": load.version,
        },
        words={"requests": f"{load.requests:.0f}", **words},
        own=target.labels if target else {},
        fleets=target.fleets if target else (),
    )


def _error_rate(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.ErrorRateParameters)
    for load in _summed(scope.loads(wanted.minutes), wanted.per).values():
        if load.requests >= wanted.min_requests and load.failed / load.requests > wanted.above:
            words = {"value": f"{load.failed / load.requests:.1%}", "limit": f"{wanted.above * 100:g}%"}
            yield _of_load(scope, load, {**words, "minutes": str(wanted.minutes)})


def _latency(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.LatencyParameters)
    for load in _summed(scope.loads(wanted.minutes), wanted.per).values():
        if sum(load.latency) < wanted.min_requests:
            continue
        value = quantile(load.latency, wanted.quantile)
        if value > wanted.above_s:
            words = {"value": f"{value:.3g} s", "limit": f"{wanted.above_s:g} s"}
            yield _of_load(
                scope, load, {**words, "minutes": str(wanted.minutes), "quantile": f"{wanted.quantile:g}"}
            )


def quantile(counts: Sequence[float], share: float) -> float:
    """A quantile from the counts of LATENCY_BUCKETS and beyond, linear within a bucket; what lies beyond the
    last bound counts as that bound."""
    rank = share * sum(counts)
    lower = below = 0.0
    for bound, count in zip(LATENCY_BUCKETS, counts, strict=False):
        if below + count >= rank and count:
            return lower + (bound - lower) * (rank - below) / count
        below += count
        lower = bound
    return lower


def _throughput(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.ThroughputParameters)
    # Who serves a model and says nothing of requests has had none.
    silent = (
        Load(target=item.id, deployment=item.deployment, model=item.model, version=item.version)
        for item in scope.targets()
        if item.online and item.digest
    )
    for load in _summed([*scope.loads(wanted.minutes), *silent], wanted.per).values():
        rate = load.requests / (60 * wanted.minutes)
        for limit, is_beyond in (
            (wanted.below_per_s, wanted.below_per_s is not None and rate < wanted.below_per_s),
            (wanted.above_per_s, wanted.above_per_s is not None and rate > wanted.above_per_s),
        ):
            if is_beyond:
                words = {"value": f"{rate:.3g}/s", "limit": f"{limit:g}/s", "minutes": str(wanted.minutes)}
                yield _of_load(scope, load, words)
                break


def _target_offline(_wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    for item in scope.targets():
        if not item.online and item.last_seen_at is not None:
            yield scope.of_target(item, {"last_seen": f"{item.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"})


def _fleet_offline(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.FleetOfflineParameters)
    fleets: dict[str, list[bool]] = {}
    for item in scope.targets():
        for fleet in item.fleets:
            fleets.setdefault(fleet, []).append(item.online)
    for fleet, online in sorted(fleets.items()):
        share = online.count(False) / len(online)
        if len(online) >= wanted.min_targets and share >= wanted.share:
            words = {"value": f"{share:.0%}", "limit": f"{wanted.share * 100:g}%"}
            words |= {"offline": str(online.count(False)), "targets": str(len(online))}
            yield Finding(labels={"fleet": fleet}, words=words)


def _wrong_version(_wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    for item in scope.targets():
        if item.online and item.wanted and item.digest != item.wanted:
            yield scope.of_target(item, {"wanted": item.wanted_name})


def _rollout(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.RolloutParameters)
    oldest = scope.facts.now - timedelta(minutes=wanted.minutes)
    for fact in scope.rollouts():
        if fact.finished_at is not None and fact.finished_at < oldest:
            continue
        yield Finding(
            labels={
                "deployment": fact.deployment,
                "rollout": str(fact.number),
                "model": fact.model,
                "version": fact.version,
            },
            words={"state": fact.state, "why": fact.why},
        )


def _queue_full(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.QueueParameters)
    for load in _summed(scope.loads(wanted.minutes), "target").values():
        if load.requests >= wanted.min_requests and load.rejected / load.requests > wanted.above:
            words = {"value": f"{load.rejected / load.requests:.1%}", "limit": f"{wanted.above * 100:g}%"}
            yield _of_load(scope, load, {**words, "minutes": str(wanted.minutes)})


def _newest(scope: _Scope, minutes: int) -> Iterator[tuple[TargetFact, Newest]]:
    found = scope.facts.newest.get(minutes, {})
    for item in scope.targets():
        if item.id in found:
            yield item, found[item.id]


def _disk_low(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.DiskParameters)
    for item, said in _newest(scope, NEWEST_M):
        ratio, free = said.disk_free_ratio, said.disk_free_bytes
        is_low = ratio is not None and ratio < wanted.below_ratio
        is_low = is_low or (free is not None and free < wanted.below_mb * 2**20)
        if is_low:
            words = {
                "value": "?" if ratio is None else f"{ratio:.1%}",
                "limit": f"{wanted.below_ratio * 100:g}%",
                "free_mb": "?" if free is None else f"{free / 2**20:.0f}",
            }
            yield scope.of_target(item, words)


def _hot(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.TemperatureParameters)
    for item, said in _newest(scope, NEWEST_M):
        if said.temperature_c is not None and said.temperature_c > wanted.above_c:
            words = {"value": f"{said.temperature_c:.0f} °C", "limit": f"{wanted.above_c:g} °C"}
            yield scope.of_target(item, words)


def _dropped(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.DroppedParameters)
    for item, said in _newest(scope, wanted.minutes):
        if said.dropped > wanted.above:
            words = {"value": f"{said.dropped:.0f}", "limit": str(wanted.above)}
            yield scope.of_target(item, {**words, "minutes": str(wanted.minutes)})


def _missing(wanted: alert_kinds.Parameters, scope: _Scope) -> Iterator[Finding]:
    assert isinstance(wanted, alert_kinds.MissingParameters)
    heard = scope.facts.heard.get(wanted.minutes, frozenset())
    for item in scope.targets():
        if item.online and item.digest and item.id in scope.facts.speakers and item.id not in heard:
            yield scope.of_target(item, {"minutes": str(wanted.minutes)})


_FINDERS: dict[str, Callable[[alert_kinds.Parameters, _Scope], Iterator[Finding]]] = {
    "drift": _drift,
    "error_rate": _error_rate,
    "latency": _latency,
    "throughput": _throughput,
    "target_offline": _target_offline,
    "fleet_offline": _fleet_offline,
    "wrong_version": _wrong_version,
    "rollout_stopped": _rollout,
    "queue_full": _queue_full,
    "disk_low": _disk_low,
    "temperature_high": _hot,
    "telemetry_dropped": _dropped,
    "telemetry_missing": _missing,
}
