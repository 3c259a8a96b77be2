"""One simulated device behaves on the wire as a real one does, whatever comes and whatever is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeflow_agent.core import plan
from edgeflow_agent.wire import documents, states
from edgeflow_agent.wire.documents import Action, PresenceKind
from edgeflow_agent.wire.topics import Kind
from edgeflow_mlflow.simulation import chance, walk
from edgeflow_mlflow.simulation.device import Device
from edgeflow_mlflow.simulation.memory import Memory, Served
from edgeflow_mlflow.simulation.outputs import Fetch, HangUp, Post, Publish
from tests.simulation.world import AUTHORITY, START, TARGET, World, wish

INSTALL = ["accepted", "downloading", "verifying", "loading"]


def online(**character: object) -> World:
    world = World(**character)  # type: ignore[arg-type]
    world.advance(2)
    assert world.device.linked
    return world


def test_an_install_walks_through_its_states_and_ends_serving() -> None:
    world = online()
    world.offer(wish(1, trial_s=90))
    world.advance(200)
    assert world.states("e1") == [*INSTALL, "trial", "deployed"]
    progress = [item.progress for item in world.history() if item.state == "trial" and item.progress]
    assert progress == [pytest.approx(60 / 90, abs=0.01)], "a trial says every minute that it goes on"
    last = world.presence[-1]
    assert (last.serving, last.version, last.generation, last.execution) == (True, "one", 1, "e1")
    assert world.device.waiting == 0
    world.offer(wish(2, "two"))
    world.advance(30)
    assert world.states("e2") == [*INSTALL, "deployed"], "a trial that takes no time is not heard of"
    assert world.presence[-1].previous_digest == last.digest


def test_a_bad_device_falls_back_and_does_so_every_time() -> None:
    world = online()
    world.offer(wish(1))
    world.advance(30)
    before = world.device.memory.served
    bad = World(Memory(served=before, handled={AUTHORITY.key_id: 1}), bad=1.0, boot="other")
    bad.advance(2)
    ends = set()
    for generation in range(2, 12):
        bad.offer(wish(generation, f"m{generation}", trial_s=5))
        bad.advance(60)
        end = bad.history()[-1]
        ends.add((end.state.value, end.reason))
        assert bad.device.memory.served == before
        assert (bad.presence[-1].digest, bad.presence[-1].generation) == (
            before and before.digest,
            generation,
        )
    assert ends == {("failed", "model"), ("rolled_back", "trial_errors")}
    assert bad.device.memory.last.state in ("failed", "rolled_back")


def test_the_same_model_again_is_adopted_hold_holds_and_remove_removes() -> None:
    world = online()
    world.offer(wish(1))
    world.advance(30)
    world.offer(wish(2))
    assert world.states("e2") == ["accepted", "deployed"]
    world.offer(wish(3, action=Action.HOLD))
    assert world.states("e3") == ["accepted", "deployed"]
    served = world.device.memory.served
    assert served is not None
    assert served.execution == "e2"
    world.offer(wish(4, action=Action.REMOVE))
    assert world.states("e4") == ["accepted", "deployed"]
    world.advance(1)
    assert (world.presence[-1].serving, world.presence[-1].digest) == (False, "")


def test_a_newer_document_takes_the_place_of_what_is_in_work() -> None:
    world = online()
    world.offer(wish(1))
    world.advance(30)
    served = world.device.memory.served
    world.offer(wish(2, "two", trial_s=100))
    world.advance(50)
    assert world.presence[-1].version == "two", "a model on trial answers"
    world.offer(wish(3, "three"))
    assert world.device.memory.served == served, "meanwhile the old one answers again"
    world.advance(30)
    assert world.states("e2")[-2:] == ["trial", "cancelled"]
    assert world.states("e3") == [*INSTALL, "deployed"]
    assert served is not None
    assert world.presence[-1].previous_digest == served.digest


def test_old_and_expired_documents_are_refused_once() -> None:
    world = online()
    world.offer(wish(5))
    world.advance(30)
    for _ in range(3):
        world.offer(wish(4, "two"))
    expired = wish(6, expires_at=datetime.fromtimestamp(START, UTC) - timedelta(days=1))
    for _ in range(3):
        world.offer(expired)
    refused = [(item.reason, item.execution) for item in world.history() if item.state == "rejected"]
    assert refused == [("old_generation", ""), ("expired", "e6")]
    assert world.device.memory.generation == 5


def test_a_document_of_a_new_key_waits_for_the_trust_document() -> None:
    world = online()
    new = Ed25519PrivateKey.generate()
    world.trust = AUTHORITY.trust(2, AUTHORITY.key, new)
    envelope = AUTHORITY.sign(wish(1), new)
    world.carry_out(world.device.message(Kind.DEPLOY, envelope, world.now))
    world.advance(30)
    assert world.states("e1") == [*INSTALL, "deployed"]
    assert sum(ask.trust for ask in world.asked) == 1
    assert world.device.identity.trust == world.trust.decode(), "it is kept"
    stranger = AUTHORITY.sign(wish(2), Ed25519PrivateKey.generate())
    world.carry_out(world.device.message(Kind.DEPLOY, stranger, world.now))
    world.advance(5)
    assert [item.reason for item in world.history() if item.state == "rejected"] == ["signature"]


def test_without_a_broker_everything_goes_over_http() -> None:
    world = World(http=True)
    world.desired = AUTHORITY.sign(wish(1))
    world.advance(60)
    assert not world.device.linked
    assert world.states("e1") == [*INSTALL, "deployed"]
    assert {way for _, way, _ in world.said} == {"http"}
    assert [item.kind for item in world.presence[:2]] == [PresenceKind.BIRTH, PresenceKind.HEARTBEAT]


def test_what_mqtt_loses_goes_over_http_the_third_time() -> None:
    world = online()
    world.stores = False
    world.offer(wish(1, action=Action.HOLD))
    world.advance(35)
    ways = [way for _, way, report in world.said if report.state == "accepted"]
    assert ways == ["mqtt", "mqtt", "http", "mqtt"]


def test_a_device_that_is_away_says_nothing_and_comes_back() -> None:
    world = online()
    world.offer(wish(1))
    world.advance(30)
    away = World(world.device.keep(), offline=0.5, boot="other", seed=5)
    silent = heard = 0
    for _ in range(3000):
        before = len(away.presence)
        away.advance(1)
        if away.device.away:
            assert not away.device.linked
            silent += 1
        heard += len(away.presence) > before
    assert 600 < silent < 2400
    assert heard > 30
    births = sum(item.kind is PresenceKind.BIRTH for item in away.presence)
    assert births > 5, "it introduces itself whenever it comes back"


def test_going_away_hangs_up() -> None:
    seed = next(seed for seed in range(100) if not chance.is_away(seed, TARGET, 2, 0.5))
    world = online(offline=0.5, seed=seed)
    for _ in range(1000):
        world.now += 1
        out = world.device.tick(world.now)
        if world.device.away:
            assert HangUp() in out or not world.device.linked
            assert not any(isinstance(item, Publish) for item in out)
            return
        world.carry_out(out)
    raise AssertionError("it never went away")


def test_downloads_are_waited_for() -> None:
    world = online(download=True)
    out = world.device.message(Kind.DEPLOY, AUTHORITY.sign(wish(1)), world.now)
    fetches = [item for item in out if isinstance(item, Fetch)]
    assert [item.deployment.execution for item in fetches] == ["e1"]
    world.carry_out([item for item in out if not isinstance(item, Fetch)])
    world.advance(100)
    assert world.states("e1") == ["accepted", "downloading"]
    world.carry_out(world.device.fetched("e1", "", "", world.now))
    world.advance(30)
    assert world.states("e1") == [*INSTALL, "deployed"]


def test_the_goodbye_goes_the_way_that_there_is() -> None:
    world = online()
    (said,) = world.device.goodbye(world.now)
    assert isinstance(said, Publish)
    polling = World(http=True)
    polling.advance(5)
    (post,) = polling.device.goodbye(polling.now)
    assert isinstance(post, Post)
    presence = post.request.presence
    assert presence is not None
    assert presence.kind is PresenceKind.GOODBYE


def test_questions_are_answered() -> None:
    world = online()
    for method, status in (("diagnose", 200), ("predict", 501)):
        question = documents.encode(documents.RpcRequest(id="q1", method=method))
        (said,) = world.device.message(Kind.RPC_REQUEST, question, world.now)
        assert isinstance(said, Publish)
        assert said.kind is Kind.RPC_RESPONSE
        assert documents.decode(documents.RpcResponse, said.payload).status == status


@pytest.mark.parametrize("payload", [b"", b"{", b"null", b"\xff" * 100, b"x" * 70_000])
def test_nothing_that_comes_is_fatal(payload: bytes) -> None:
    world = online()
    for kind in (Kind.DEPLOY, Kind.STORED, Kind.RPC_REQUEST):
        world.carry_out(world.device.message(kind, payload, world.now))
    world.offer(wish(1))
    world.advance(30)
    assert world.states("e1")[-1] == "deployed"


# ---- whatever happens

CONTENTS = st.sampled_from(["one", "two", "three"])
ACTIONS = st.sampled_from([Action.INSTALL] * 4 + [Action.HOLD, Action.REMOVE])
OFFERS = st.tuples(
    st.just("offer"),
    st.sampled_from([-2, 0, 1, 1, 1, 2]),
    CONTENTS,
    ACTIONS,
    st.sampled_from([0.0, 0.0, 20.0]),
)
TIMES = st.tuples(st.just("time"), st.one_of(st.floats(0, 3), st.floats(0, 40)))
EVENTS = st.one_of(
    OFFERS,
    OFFERS,
    TIMES,
    TIMES,
    st.tuples(st.just("stores"), st.booleans()),
    st.tuples(st.just("answers"), st.booleans()),
    st.tuples(st.just("broker"), st.booleans()),
    st.tuples(st.just("restart")),
)


def play(world: World, events: list[tuple[object, ...]]) -> None:
    """Everything that may befall a device; what must never be is looked for after each event."""
    generation = newest = 0
    for number, (name, *values) in enumerate(events):
        if name == "offer":
            step, content, action, trial_s = values
            asked = max(newest + int(step), 0)  # type: ignore[call-overload]
            newest = max(newest, asked)
            desired = wish(asked, str(content), action=Action(action), trial_s=float(trial_s))  # type: ignore[arg-type]
            if world.device.linked:
                world.offer(desired)
            else:
                world.desired = AUTHORITY.sign(desired)
        elif name == "time":
            world.advance(float(values[0]))  # type: ignore[arg-type]
        elif name == "restart":
            kept = msgspec.json.decode(msgspec.json.encode(world.device.keep()), type=Memory)
            world.device = Device(
                AUTHORITY.identity(), kept, world.character, boot=f"boot{number}", born=world.now
            )
        else:
            setattr(world, str(name), values[0])
            if name == "broker" and not world.broker and world.device.linked:
                world.device.disconnected(world.now)
        assert world.device.memory.generation >= generation, "the ratchet went back"
        generation = world.device.memory.generation


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=25), st.booleans(), st.floats(0, 1))
def test_whatever_happens(events: list[tuple[object, ...]], http: bool, bad: float) -> None:
    world = World(http=http, bad=bad)
    world.advance(2)
    play(world, events)
    world.stores = world.answers = world.broker = True
    world.desired = b""
    world.advance(300)
    assert world.device.memory.task is None, "every deployment ends"
    assert world.device.waiting == 0, "every report is stored in the end"
    open_execution, state = "", None
    for report in sorted(
        {(item.boot, item.seq): item for _, _, item in world.said}.values(),
        key=lambda item: (item.at or datetime.min.replace(tzinfo=UTC), item.boot == "boot", item.seq),
    ):
        if report.state == "rejected":
            continue
        if report.state == "accepted":
            assert open_execution == "", "two deployments in work"
            open_execution = report.execution
        else:
            assert report.execution == open_execution
            assert state is not None
            assert states.may_follow(state, report.state) or state == report.state
        state = report.state
        if states.is_terminal(report.state):
            open_execution, state = "", None
    assert open_execution == "", "a deployment that was accepted did not end"


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_reports_repeat_until_they_are_stored(events: list[tuple[object, ...]]) -> None:
    world = World()
    world.advance(2)
    play(world, events)
    world.answers = world.broker = True
    world.stores = False
    world.desired = b""
    world.advance(100)  # the connection stands
    world.offer(wish(99))
    world.advance(100)  # whatever was in work has ended
    assert world.device.waiting > 0
    waiting = {(item.boot, item.seq) for item in world.device.keep().reports[:10]}
    world.said.clear()
    world.advance(60)
    for known in waiting:
        times = [when for when, _, report in world.said if (report.boot, report.seq) == known]
        assert len(times) >= 4, "it was not repeated"
    world.stores = True
    world.advance(60)
    assert world.device.waiting == 0
    world.said.clear()
    world.advance(60)
    assert world.said == [], "what is stored is not sent again"


@given(
    st.integers(0, 4), CONTENTS, ACTIONS, st.booleans(),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 4)),
    st.sampled_from(["", "a", "b"]), st.integers(0, 4), CONTENTS, st.booleans(), st.sampled_from("ab"),
)  # fmt: skip
def test_a_document_is_judged_as_the_agent_judges_it(
    generation: int,
    content: str,
    action: Action,
    asks: bool,
    handled: dict[str, int],
    active: str,
    active_generation: int,
    served: str,
    fresh: bool,
    key: str,
) -> None:
    desired = wish(generation, content, action=action)
    if not asks:
        desired = msgspec.structs.replace(desired, deployments=())
    digest = documents.bundle_digest(wish(0, served).deployments[0].files)
    now = datetime.fromtimestamp(START, UTC) + timedelta(days=0 if fresh else 30)
    memory = Memory(
        handled=handled,
        served=Served(
            digest=digest,
            model=documents.ModelRef(name="m", version="1"),
            deployment="d1",
            execution="e0",
            runtime=documents.Runtime(),
        ),
    )
    if active:
        task_of = wish(active_generation).deployments[0]
        memory.task = walk.Task(
            deployment=task_of, digest="", generation=active_generation, key=active,
            state=states.State.LOADING, takes_s=1.0, fate=states.State.DEPLOYED,
        )  # fmt: skip
    actual = plan.Actual(
        handled=handled,
        active_key=active,
        active_generation=active_generation if active else -1,
        digest=digest,
    )
    assert walk.decide(desired, key, memory, now).value == plan.decide(desired, key, actual, now).value
