"""Which alerts are meant by their labels: for silences, for receivers, and for alerts that hush others."""

from __future__ import annotations

import enum
import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from edgeflow_mlflow import errors

MAX_MATCHERS = 20
_MAX_VALUE = 256
_MATCHER = re.compile(r"\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]{0,62})\s*(?P<sign>=~|!~|!=|=)\s*(?P<value>.*?)\s*")
_MAX_REPEATS = 3
_REPEATS = "*+?{"


class Operator(enum.StrEnum):
    """How a label is compared."""

    EQUALS = "="
    DIFFERS = "!="
    LIKE = "=~"
    UNLIKE = "!~"


@dataclass(frozen=True, kw_only=True)
class Matcher:
    """One condition. A label that is absent is an empty one."""

    name: str
    operator: Operator
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds. Of a label with several values one is enough, and none may be."""
        found = values(labels, self.name)
        match self.operator:
            case Operator.EQUALS:
                return self.value in found
            case Operator.DIFFERS:
                return self.value not in found
            case Operator.LIKE:
                return any(_pattern(self.value).fullmatch(item) for item in found)
            case Operator.UNLIKE:
                return not any(_pattern(self.value).fullmatch(item) for item in found)

    def __str__(self) -> str:
        return f'{self.name}{self.operator.value}"{self.value}"'


def values(labels: Mapping[str, str], name: str) -> tuple[str, ...]:
    """The values of a label: `fleet` may have several, with commas between them."""
    value = labels.get(name, "")
    return tuple(value.split(",")) if name == "fleet" else (value,)


def parse(texts: Iterable[str]) -> tuple[Matcher, ...]:
    """Read conditions such as `severity="critical"`; raise InvalidError that says which cannot be read."""
    found = tuple(_parse(text) for text in texts)
    if len(found) > MAX_MATCHERS:
        raise errors.InvalidError(f"{len(found)} matchers are over the limit of {MAX_MATCHERS}")
    return found


def _parse(text: str) -> Matcher:
    found = _MATCHER.fullmatch(text)
    if found is None or len(text) > 2 * _MAX_VALUE:
        raise errors.InvalidError(
            f'cannot read the matcher {text[:120]!r}: write label="value", with =, !=, =~ or !~'
        )
    value = found["value"]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    operator = Operator(found["sign"])
    if len(value) > _MAX_VALUE:
        raise errors.InvalidError(
            f"the value of the matcher for {found['name']} is over {_MAX_VALUE} characters"
        )
    if operator in (Operator.LIKE, Operator.UNLIKE):
        _check_pattern(value)
    return Matcher(name=found["name"], operator=operator, value=value)


def _check_pattern(pattern: str) -> None:
    """A pattern that nobody has to wait for: without groups, and with few repeats in each alternative, it is
    looked for in the time that it takes to read a label a few times over."""
    bare = re.sub(r"\[\^?\]?[^\]]*\]", "x", re.sub(r"\\.", "x", pattern))
    if "(" in bare or ")" in bare:
        raise errors.InvalidError(
            f"the pattern {pattern[:80]!r} has a group: write its alternatives out, as robot-01|robot-02"
        )
    for part in bare.split("|"):
        if sum(part.count(sign) for sign in _REPEATS) > _MAX_REPEATS:
            raise errors.InvalidError(
                f"the pattern {pattern[:80]!r} has more than {_MAX_REPEATS} of * + ? {{ in one alternative"
            )
    try:
        re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise errors.InvalidError(f"the pattern {pattern[:80]!r} cannot be read: {error}") from error


@functools.lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def match_all(matchers: Sequence[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether every condition holds."""
    return all(matcher.matches(labels) for matcher in matchers)


# ---- silences


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Between two moments nobody is told of the alerts that it matches."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime

    def covers(self, labels: Mapping[str, str], now: datetime) -> bool:
        """Whether an alert with these labels is silenced now. The end no longer counts."""
        return self.starts_at <= now < self.ends_at and match_all(self.matchers, labels)


def check_silence(matchers: Sequence[Matcher]) -> None:
    """Refuse a silence of everything: an alert without any label that is asked for has them all empty."""
    if not matchers or match_all(matchers, {}):
        raise errors.InvalidError(
            'a silence needs at least one matcher that not everything fulfils, as target="robot-07"'
        )


# ---- inhibition


@dataclass(frozen=True, kw_only=True)
class Inhibition:
    """While an alert that matches `source` fires, nobody is told of those that match `target` and share a
    value of each label in `equal` with it."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...]

    def keys(self, labels: Mapping[str, str]) -> set[tuple[str, ...]]:
        """What an alert shares with others; a label that is absent is shared with nobody."""
        found = [tuple(value for value in values(labels, name) if value) for name in self.equal]
        return set(itertools.product(*found))


INHIBITIONS = (
    Inhibition(
        source=parse(['kind="fleet_offline"']), target=parse(['kind="target_offline"']), equal=("fleet",)
    ),
    # What a device that is away said last is no news.
    Inhibition(
        source=parse(['kind="target_offline"']), target=parse(['kind!="target_offline"']), equal=("target",)
    ),
)


class Inhibitor:
    """Which alerts are hushed by those that fire now."""

    def __init__(
        self, firing: Iterable[Mapping[str, str]], inhibitions: Sequence[Inhibition] = INHIBITIONS
    ) -> None:
        known = list(firing)
        self._sources = [
            (item, {key for labels in known if match_all(item.source, labels) for key in item.keys(labels)})
            for item in inhibitions
        ]

    def hushes(self, labels: Mapping[str, str]) -> bool:
        """Whether another alert speaks for this one. None hushes itself."""
        return any(
            match_all(item.target, labels)
            and not match_all(item.source, labels)
            and not keys.isdisjoint(item.keys(labels))
            for item, keys in self._sources
        )
