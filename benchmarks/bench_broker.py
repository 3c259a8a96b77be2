"""How much the embedded broker carries, beside Mosquitto in the same run.

    python benchmarks/bench_broker.py [--devices 500] [--messages 10]

One process holds the hub's side (`Broker` with a handler that only counts), another one all devices. Per
broker: devices that connect, subscribe and say hello per second; QoS 1 messages from devices per second,
acknowledged and handled; documents of 2 kB per second from the hub to all devices; memory of the broker per
device. All of it shares this machine's cores, so read the figures as ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from edgeflow_agent.wire import topics
from edgeflow_mlflow.broker import embedded, link, port
from tests.broker import raw

DOCUMENT = b"x" * 2000
MESSAGE = b"x" * 300


async def devices(url: str, count: int, messages: int) -> None:
    """The other process: prints one line of JSON after each phase, and waits for a line before the next."""
    parts = urllib.parse.urlsplit(url)
    streams: list[tuple[str, asyncio.StreamReader, asyncio.StreamWriter]] = []
    together = asyncio.Semaphore(100)

    async def come(number: int) -> None:
        target = f"robot-{number:05d}"
        async with together:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            wanted = [topics.topic(target, kind) for kind in sorted(topics.TO_DEVICE)]
            writer.write(
                raw.connect(target, username=target, password="secret", keepalive=300)
                + raw.subscribe(*wanted)
                + raw.publish(topics.topic(target, topics.Kind.PRESENCE), MESSAGE, mid=2)
            )
            await reader.readexactly(4 + 4 + len(wanted) + 4)
        streams.append((target, reader, writer))

    async def say(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        topic = topics.topic(target, topics.Kind.TELEMETRY)
        writer.write(b"".join(raw.publish(topic, MESSAGE, mid=3 + number) for number in range(messages)))
        await reader.readexactly(4 * messages)

    async def hear(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = raw.packet(0x32, raw.text(topics.topic(target, topics.Kind.DEPLOY)) + b"\0\0" + DOCUMENT)
        data = await reader.readexactly(len(head))
        end = len(head) - len(DOCUMENT)
        writer.write(raw.packet(0x40, data[end - 2 : end]))

    async def phase(name: str, work: list[Any], amount: int) -> None:
        begin = time.perf_counter()
        await asyncio.gather(*work)
        print(json.dumps({name: round(amount / (time.perf_counter() - begin))}), flush=True)

    await phase("connects_per_s", [come(number) for number in range(count)], count)
    sys.stdin.readline()
    await phase("messages_per_s", [say(*stream) for stream in streams], count * messages)
    hearing = [asyncio.ensure_future(hear(*stream)) for stream in streams]
    print(json.dumps({"ready": 0}), flush=True)
    await phase("documents_per_s", hearing, count)


def measure(
    broker: port.Broker, received: Callable[[], int], process: psutil.Process, args: Any
) -> dict[str, Any]:
    """Drive the other process through its phases."""
    before = process.memory_info().rss
    command = [sys.executable, __file__, "--connect", broker.address]
    command += ["--devices", str(args.devices), "--messages", str(args.messages)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        figures: dict[str, Any] = json.loads(child.stdout.readline())
        figures["kb_per_device"] = round((process.memory_info().rss - before) / 1024 / args.devices)
        begin = time.perf_counter()
        child.stdin.write("\n")
        child.stdin.flush()
        figures |= json.loads(child.stdout.readline())
        expected = args.devices * (args.messages + 1)
        while received() < expected:
            if time.perf_counter() - begin > 120:
                raise SystemExit(f"{received()} of {expected} messages arrived")
            time.sleep(0.005)
        figures["handled_per_s"] = round(args.devices * args.messages / (time.perf_counter() - begin))
        child.stdout.readline()
        for number in range(args.devices):
            while not broker.publish(f"robot-{number:05d}", topics.Kind.DEPLOY, DOCUMENT):
                time.sleep(0.001)
        figures |= json.loads(child.stdout.readline())
        child.stdin.close()
    return figures


def counting() -> tuple[list[int], port.Handlers]:
    """Handlers that count, one number per worker's turn."""
    seen: list[int] = []
    return seen, port.Handlers(
        on_message=lambda target, kind, payload: seen.append(1), authenticate=lambda target, password: True
    )


def embedded_figures(args: Any) -> dict[str, Any]:
    seen, handlers = counting()
    settings = port.EmbeddedSettings(port=0, messages_per_s=1e9, message_burst=10**9)
    broker = embedded.EmbeddedBroker(settings, handlers)
    broker.start()
    try:
        return measure(broker, lambda: len(seen), psutil.Process(), args)
    finally:
        broker.stop()


def mosquitto_figures(args: Any) -> dict[str, Any]:
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if binary is None:
        return {"skipped": "mosquitto is not installed"}
    seen, handlers = counting()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
        free.close()
        lines = [f"listener {number} 127.0.0.1", "allow_anonymous true", "max_queued_messages 100000"]
        lines += ["max_inflight_messages 1000", *(["user root"] if os.geteuid() == 0 else [])]
        (Path(folder) / "conf").write_text("\n".join(lines) + "\n")
        with subprocess.Popen([binary, "-c", f"{folder}/conf"], stderr=subprocess.DEVNULL) as server:
            broker = link.ExternalBroker(port.ExternalSettings(url=f"mqtt://127.0.0.1:{number}"), handlers)
            broker.start()
            try:
                while not broker.healthy():
                    time.sleep(0.01)
                return measure(broker, lambda: len(seen), psutil.Process(server.pid), args)
            finally:
                broker.stop()
                server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--connect", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.connect:
        asyncio.run(devices(args.connect, args.devices, args.messages))
        return
    for name, figures in (("embedded", embedded_figures(args)), ("mosquitto", mosquitto_figures(args))):
        print(json.dumps({"broker": name, "devices": args.devices, **figures}))


if __name__ == "__main__":
    main()
