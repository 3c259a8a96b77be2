"""The packet parser and the rules of admission: pure, against every split and against garbage."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeflow_agent.wire import topics
from edgeflow_mlflow.broker import admission, packets, port
from tests.broker import raw

PRESENCE = "edgeflow/targets/robot-01/presence"
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
whole = st.one_of(
    st.builds(
        raw.publish, texts, st.binary(max_size=300), qos=st.sampled_from([0, 1, 2]), mid=st.integers(1, 65535)
    ),
    st.builds(raw.subscribe, texts, texts, mid=st.integers(1, 65535)),
    st.just(raw.packet(0xC0)),
    st.just(raw.packet(0xE0)),
    st.integers(1, 65535).map(lambda mid: raw.packet(0x40, mid.to_bytes(2, "big"))),
)


def parse(packet: packets.Packet) -> object:
    match packet.type:
        case packets.Type.CONNECT:
            return packets.parse_connect(packet)
        case packets.Type.PUBLISH:
            return packets.parse_publish(packet)
        case packets.Type.SUBSCRIBE:
            return packets.parse_subscribe(packet)
        case packets.Type.UNSUBSCRIBE:
            return packets.parse_unsubscribe(packet)
        case packets.Type.PUBACK:
            return packets.parse_puback(packet)
        case _:
            return None


def cut(chunks: list[bytes], *, limit: int = 10_000) -> list[packets.Packet]:
    parser = packets.Parser(limit=limit, allowed=packets.LATER)
    found = []
    for chunk in chunks:
        parser.feed(chunk)
        while (packet := parser.take()) is not None:
            found.append(packet)
    return found


@given(st.lists(whole, max_size=6), st.data())
def test_split_anywhere_gives_the_same_packets(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    found = cut(chunks)
    assert [packet.raw for packet in found] == parts
    assert found == cut([stream]) == cut([bytes([byte]) for byte in stream])
    for packet in found:
        parse(packet)


@given(st.lists(st.binary(max_size=200), max_size=5), st.sampled_from([packets.FIRST, packets.LATER]))
def test_garbage_raises_the_parsers_own_error_only(
    chunks: list[bytes], allowed: frozenset[packets.Type]
) -> None:
    parser = packets.Parser(limit=500, allowed=allowed)
    with contextlib.suppress(packets.PacketError):
        for chunk in chunks:
            parser.feed(chunk)
            while (packet := parser.take()) is not None:
                parse(packet)


@given(whole, st.data())
def test_a_changed_byte_raises_the_parsers_own_error_or_gives_a_packet(
    part: bytes, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(part) - 1))
    evil = bytearray(part)
    evil[index] = data.draw(st.integers(0, 255))
    with contextlib.suppress(packets.PacketError):
        for packet in cut([bytes(evil)]):
            parse(packet)


@given(texts, st.integers(0, 65535), st.booleans(), texts, texts)
def test_connect_round_trip(client: str, keepalive: int, clean: bool, user: str, password: str) -> None:
    data = raw.connect(client, username=user, password=password, keepalive=keepalive, clean=clean)
    parser = packets.Parser(limit=2048, allowed=packets.FIRST)
    parser.feed(data)
    packet = parser.take()
    assert packet is not None
    connect = packets.parse_connect(packet)
    assert (connect.client_id, connect.username, connect.password) == (client, user, password)
    assert (connect.keepalive_s, connect.clean_session, connect.will) == (keepalive, clean, False)
    assert repr(password) not in repr(connect).split("username", 1)[1].replace(repr(user), "", 1)


def test_what_the_broker_behind_the_gate_sees_holds_no_password() -> None:
    parser = packets.Parser(limit=2048, allowed=packets.FIRST)
    parser.feed(packets.encode_connect("robot-01~1", "robot-01"))
    packet = parser.take()
    assert packet is not None
    assert packets.parse_connect(packet) == packets.Connect(
        level=4, client_id="robot-01~1", clean_session=True, username="robot-01"
    )


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 200_000])
def test_every_size_of_the_length_field(size: int) -> None:
    data = raw.publish("t", b"x" * size, qos=0)
    (packet,) = cut([data], limit=300_000)
    assert packets.parse_publish(packet).payload == b"x" * size


@pytest.mark.parametrize("length", [500, 501, 500_000, 268_435_455])
def test_the_limit_is_judged_before_the_body_comes(length: int) -> None:
    parser = packets.Parser(limit=500, allowed=packets.LATER)
    parser.feed(raw.packet(0x30, b"", length=length))
    if length <= 500:
        assert parser.take() is None
    else:
        with pytest.raises(packets.PacketError, match="over the limit"):
            parser.take()


@given(texts)
def test_a_device_may_say_only_its_own_topics(name: str) -> None:
    for target in ("robot-01", name):
        for topic in (name, f"edgeflow/targets/{name}", f"edgeflow/targets/robot-01/{name}"):
            message = packets.Publish(topic=topic, qos=1, retain=False, packet_id=1, payload=b"")
            with contextlib.suppress(packets.PacketError):
                kind = admission.judge_publish(target, message)
                assert kind in topics.FROM_DEVICE
                assert topic == topics.topic(target, kind)
            with contextlib.suppress(packets.PacketError):
                kind = admission.judge_filter(target, topic)
                assert kind in topics.TO_DEVICE
                assert topic == topics.topic(target, kind)


def test_the_table_of_failures_stays_small_and_forgets() -> None:
    failures = admission.Failures(per_target=3, per_address=5, window_s=60)
    for number in range(30_000):
        failures.failed(f"10.0.{number >> 8}.{number & 255}", "robot-01", now=0.0)
        failures.succeeded(f"10.1.{number >> 8}.{number & 255}", "robot-01")
    assert len(failures) <= 20_000
    for _ in range(3):
        assert not failures.blocked("a", "x", 10.0)
        failures.failed("a", "x", 10.0)
    assert failures.blocked("a", "x", 69.9)
    assert not failures.blocked("a", "x", 70.1)
    assert not failures.blocked("a", "y", 11.0)
    failures.failed("a", "y", 11.0)
    failures.failed("a", "z", 11.0)
    assert failures.blocked("a", "y", 12.0)
    assert not failures.blocked("b", "y", 12.0)
    failures.succeeded("a", "y")
    assert not failures.blocked("a", "y", 12.0)


@given(st.lists(st.floats(0, 3), max_size=200), st.floats(1, 100), st.integers(1, 50))
def test_the_bucket_never_lets_more_through_than_rate_and_burst(
    gaps: list[float], rate: float, burst: int
) -> None:
    now, bucket = 0.0, admission.Bucket(rate=rate, burst=burst, now=0.0)
    for count, gap in enumerate(gaps, 1):
        now += gap
        now += bucket.delay(now)
        assert count <= burst + rate * now + 1e-6


def test_defaults_are_those_of_the_contract() -> None:
    settings = port.EmbeddedSettings()
    assert (settings.max_pending, settings.connect_timeout_s, settings.max_connect_bytes) == (64, 5.0, 2048)
    assert (settings.min_keepalive_s, settings.max_keepalive_s, settings.max_clients) == (5, 300, 2000)
    assert (settings.messages_per_s, settings.message_burst) == (50.0, 200)
    assert settings.max_outbound_bytes == 2**20
