"""The server under load, with a scripted assistant behind it: what HTTP, queue, threads and JSON cost by themselves.

    python benchmarks/serve_load.py [--seconds 20] [--cores 0,1]

The server runs in a process of its own; the client is a bare asyncio one, so that it does not become what is measured.
Server and client share the cores that are named. Measured: requests a second with 16 connections; the overhead (a reply
that costs the script nothing) at 70 % of that rate; an emergency while slow answers take every place; streams of
which one in twenty is cut by its client, and whether the others are whole; refusals of a flood; memory.

Writes benchmarks/results/serve_load.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from medtune.run_dir import environment, write_json

RESULT = Path(__file__).parent / "results" / "serve_load.json"
SERVER = """
import asyncio, socket, sys
import uvicorn
from medtune.serving.api import create_app
from medtune.serving.scripted import ScriptedAssistant
from medtune.serving.service import Limits, Served, Service

async def main():
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    quick = Served("quick", ScriptedAssistant())
    slow = Served("slow", ScriptedAssistant(default="word " * 40, seconds_per_word=0.05))
    app = create_app(Service([quick, slow], limits=Limits(running=16, waiting=64)))
    print(listener.getsockname()[1], flush=True)
    # An idle connection stays open: that the server may close one while it is used again is not what is measured.
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_keep_alive=600)
    await uvicorn.Server(config).serve([listener])

asyncio.run(main())
"""
QUESTION, EMERGENCY = "Why does anaemia make people tired?", "I have chest pain"


def request(model: str, text: str, stream: bool = False) -> bytes:
    """One POST as it goes over the wire."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}).encode()
    head = ("POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", "")).encode() + body


class Client:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, data: bytes, cut_after: int | None = None) -> tuple[int, bytes, float]:
        """Status, body and seconds; the connection is cut after so many bytes of the body."""
        start = time.perf_counter()
        self.writer.write(data)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, lower = int(head.split(b" ", 2)[1]), head.lower()
        if b"content-length: " in lower:
            length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
            return status, await self.reader.readexactly(length), time.perf_counter() - start
        body = bytearray()
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            if cut_after is not None and len(body) > cut_after:
                self.writer.transport.abort()
                return 0, bytes(body), time.perf_counter() - start
        await self.reader.readexactly(2)
        return status, bytes(body), time.perf_counter() - start


async def throughput(port: int, seconds: float) -> dict[str, Any]:
    """16 connections, each asking again as soon as it is answered."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def loop() -> None:
        async with Client(port) as client:
            while time.perf_counter() < end:
                status, _, took = await client.ask(request("quick", QUESTION))
                assert status == 200
                times.append(took)

    await asyncio.gather(*(loop() for _ in range(16)))
    return {"requests_per_second": len(times) / seconds, **percentiles(times)}


async def overhead(port: int, rate: float, seconds: float) -> dict[str, Any]:
    """Requests that arrive at `rate` whether or not the earlier ones are answered."""
    times: list[float] = []
    free: list[Client] = []

    async def one() -> None:
        client = free.pop() if free else await Client(port).__aenter__()
        times.append((await client.ask(request("quick", QUESTION)))[2])
        free.append(client)

    tasks, start = [], time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    for client in free:
        await client.__aexit__()
    return {"rate": rate, **percentiles(times)}


async def emergencies(port: int, count: int) -> dict[str, Any]:
    """Emergencies one after the other while slow streams take every place and more of them wait."""
    times: list[float] = []
    is_over = False

    async def busy() -> None:
        while not is_over:
            async with Client(port) as client:
                await client.ask(request("slow", QUESTION, stream=True))

    streams = [asyncio.create_task(busy()) for _ in range(24)]
    await asyncio.sleep(0.5)
    async with Client(port) as client:
        for _ in range(count):
            _, body, took = await client.ask(request("slow", EMERGENCY))
            assert json.loads(body)["medtune"]["urgency"] == "emergency"
            times.append(took)
    is_over = True
    await asyncio.gather(*streams)
    return percentiles(times)


async def resets(port: int, count: int) -> dict[str, Any]:
    """Streams, 16 at a time; one in twenty is cut by its client."""
    random.seed(0)
    whole = cut = 0
    numbers = iter(range(count))

    async def loop() -> None:
        nonlocal whole, cut
        for _ in numbers:
            is_cut = random.random() < 0.05
            async with Client(port) as client:
                status, body, _ = await client.ask(request("quick", QUESTION, stream=True), 500 if is_cut else None)
            if is_cut and status == 0:
                cut += 1
            else:
                whole += is_whole(body)

    await asyncio.gather(*(loop() for _ in range(16)))
    return {"streams": count, "cut_by_client": cut, "whole": whole, "whole_share_of_rest": whole / (count - cut)}


def is_whole(body: bytes) -> bool:
    """Every frame JSON, a finish reason in the last one, [DONE] at the end."""
    *chunks, done, rest = body.decode().split("\n\n")
    parsed = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    return (done, rest) == ("data: [DONE]", "") and parsed[-1]["choices"][0]["finish_reason"] == "stop"


async def flood(port: int, count: int) -> dict[str, Any]:
    """Many slow requests at once: how long the refused ones wait for their refusal. Connections are open beforehand."""
    clients = [await Client(port).__aenter__() for _ in range(count)]
    tasks = []
    for client in clients:
        tasks.append(asyncio.create_task(client.ask(request("slow", QUESTION))))
        await asyncio.sleep(0.005)
    answers = await asyncio.gather(*tasks)
    for client in clients:
        await client.__aexit__()
    refused = [took for status, _, took in answers if status == 503]
    return {
        "asked": count,
        "answered": sum(s == 200 for s, _, _ in answers),
        "refused": len(refused),
        **percentiles(refused),
    }


def percentiles(times: list[float]) -> dict[str, float]:
    """Of seconds, in milliseconds."""
    ordered = sorted(times)

    def at(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "max_ms": 1000 * ordered[-1]}


async def measure(port: int, process: psutil.Process, seconds: float) -> dict[str, Any]:
    """Every figure, in the order of the page's head."""
    await throughput(port, 2)  # warm
    before = process.memory_info().rss
    busy = sum(process.cpu_times()[:2])
    found: dict[str, Any] = {"throughput": await throughput(port, seconds)}
    busy = sum(process.cpu_times()[:2]) - busy
    # Time in the processor hardly depends on what else the machine does.
    found["throughput"]["server_cpu_ms"] = 1000 * busy / (found["throughput"]["requests_per_second"] * seconds)
    found["overhead"] = await overhead(port, 0.7 * found["throughput"]["requests_per_second"], seconds)
    found["emergency"] = await emergencies(port, 100)
    found["resets"] = await resets(port, 1000)
    found["flood"] = await flood(port, 160)
    await overhead(port, 0.7 * found["throughput"]["requests_per_second"], seconds)
    found["memory"] = {"before_bytes": before, "after_bytes": process.memory_info().rss}
    return found


def main() -> None:
    """Start the server, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--cores", default="0,1", help="cores that server and client share")
    options = parser.parse_args()
    cores = [int(core) for core in options.cores.split(",")]
    os.sched_setaffinity(0, cores)
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        time.sleep(1)
        start_load = os.getloadavg()[0]
        found = asyncio.run(measure(port, psutil.Process(server.pid), options.seconds))
    finally:
        server.terminate()
        server.wait()
    table = Table("measured", "figure", "value")
    for name, figures in found.items():
        for figure, value in figures.items():
            table.add_row(name, figure, f"{value:,.1f}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    facts = {"cores": cores, "seconds": options.seconds, "load_average_at_start": start_load}
    write_json(RESULT, {"machine": environment(), **facts, **found})


if __name__ == "__main__":
    main()
