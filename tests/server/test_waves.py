"""Who goes when, and how many at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_mlflow import errors
from edgeflow_mlflow.domain import schedule, waves
from edgeflow_mlflow.domain.waves import Candidate

NOW = datetime(2026, 3, 3, 12, 0, tzinfo=UTC)
_candidates = st.lists(
    st.builds(
        Candidate,
        id=st.text("abcdef0123456789", min_size=1, max_size=6),
        labels=st.fixed_dictionaries({}, optional={"ring": st.sampled_from(["canary", "beta"])}),
        online=st.booleans(),
    ),
    unique_by=lambda item: item.id,
    max_size=60,
)
_waves = st.lists(
    st.one_of(
        st.integers(1, 80).map(lambda count: waves.Share(count=count)),
        st.floats(0.1, 100).map(lambda percent: waves.Share(percent=percent)),
        st.sampled_from(["ring=canary", "ring=beta", "!ring"]).map(lambda word: waves.parse([word])[0]),
    ),
    max_size=6,
)


@given(_candidates, _waves, st.text(max_size=5))
def test_everybody_is_in_exactly_one_wave(
    candidates: list[Candidate], specified: list[waves.Wave], seed: str
) -> None:
    divided = waves.divide(candidates, specified, seed)
    assert sorted(name for wave in divided for name in wave) == sorted(item.id for item in candidates)
    assert all(divided), "a wave of nobody is none"
    assert divided == waves.divide(candidates[::-1], specified, seed), "the order of rows does not matter"


@given(_candidates, st.lists(st.floats(0.1, 100), min_size=1, max_size=5, unique=True))
def test_shares_count_everybody_so_far(candidates: list[Candidate], percents: list[float]) -> None:
    ordered = sorted(percents)
    specified = [waves.Share(percent=percent) for percent in ordered]
    divided = waves.divide(candidates, specified, "x")
    reached = {sum(len(wave) for wave in divided[:number]) for number in range(len(divided) + 1)}
    for share in specified:
        assert share.total(len(candidates)) in reached
        assert share.total(len(candidates)) >= min(len(candidates), 1), "a share is never nobody"


@given(_candidates, st.integers(1, 10))
def test_who_is_online_goes_first(candidates: list[Candidate], count: int) -> None:
    first = waves.divide(candidates, [waves.Share(count=count)], "x")[:1]
    online = {item.id for item in candidates if item.online}
    for wave in first:
        assert set(wave) <= online or online <= set(wave)


def test_the_words_of_an_operator() -> None:
    assert waves.split("1, 10%,100%") == ["1", "10%", "100%"]
    assert waves.split("ring=canary,site=lyon; 50%") == ["ring=canary,site=lyon", "50%"]
    canary, half, rest = waves.parse(["ring=canary", "50%", "100%"])
    assert isinstance(canary, waves.Labelled)
    assert half == waves.Share(percent=50)
    assert rest == waves.Share(percent=100)
    assert waves.parse([]) == waves.EVERYBODY
    with pytest.raises(errors.InvalidError, match="limit of 50"):
        waves.parse([str(number) for number in range(1, 52)])


@given(
    st.floats(0.01, 10_000),
    st.lists(st.floats(0, 30), min_size=1, max_size=40),
    st.text(max_size=5),
)
def test_the_rate_is_kept_whenever_one_looks(rate: float, pauses: list[float], seed: str) -> None:
    elapsed, begun = 0.0, 0
    for pause in [0.0, *pauses]:
        elapsed += pause
        allowed = schedule.allowance(rate, timedelta(seconds=elapsed), begun, seed)
        assert allowed is not None
        begun += allowed
        slots = elapsed * rate / 60
        assert slots - 1 <= begun <= slots + 1
        assert schedule.allowance(rate, timedelta(seconds=elapsed), begun, seed) == 0, "asked twice"
    assert schedule.allowance(0, timedelta(), 0, seed) is None


@pytest.mark.parametrize(
    ("cron", "zone", "minutes", "moment", "is_open", "opens"),
    [
        ("0 12 * * *", "UTC", 60, NOW, True, NOW + timedelta(days=1)),
        ("0 12 * * *", "UTC", 60, NOW + timedelta(minutes=59, seconds=59), True, NOW + timedelta(days=1)),
        ("0 12 * * *", "UTC", 60, NOW + timedelta(minutes=60), False, NOW + timedelta(days=1)),
        ("0 12 * * *", "UTC", 60, NOW - timedelta(seconds=1), False, NOW),
        ("0 13 * * *", "Europe/Paris", 5, NOW, True, NOW + timedelta(days=1)),
        ("0 22 * * *", "UTC", 16 * 60, NOW, True, NOW + timedelta(hours=10)),
        ("*/15 * * * *", "UTC", 1, NOW + timedelta(seconds=70), False, NOW + timedelta(minutes=15)),
        ("0 0 * * 6", "UTC", 60, NOW, False, datetime(2026, 3, 7, tzinfo=UTC)),
    ],
)
def test_windows(
    cron: str, zone: str, minutes: int, moment: datetime, is_open: bool, opens: datetime
) -> None:
    window = schedule.window(cron, minutes, zone)
    assert (window.opened(moment) is not None) is is_open
    assert window.opens(moment) == opens


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)).map(lambda when: when.replace(tzinfo=UTC)),  # noqa: DTZ001
    st.sampled_from(["0 2 * * *", "30 1 * * 0", "*/7 * * * *", "0 3 29 2 *"]),
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata"]),
    st.integers(1, 7 * 1440),
)
def test_a_window_is_open_from_when_it_opens(now: datetime, cron: str, zone: str, minutes: int) -> None:
    window = schedule.window(cron, minutes, zone)
    opens = window.opens(now)
    assert opens > now
    since = window.opened(opens)
    assert since is not None
    assert since <= opens


def test_who_waits_for_a_window_that_cannot_be() -> None:
    for cron, minutes, zone in (("soon", 60, "UTC"), ("0 2 * * *", 0, "UTC"), ("0 2 * * *", 5, "../etc")):
        with pytest.raises(errors.InvalidError):
            schedule.window(cron, minutes, zone)
