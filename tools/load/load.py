#!/usr/bin/env python3
"""How long a poll takes beside a computing worker, while jobs wait.

    tools/load/load.py --binary target/release/calotype

Puts jobs into the queue of a service that computes, of which some have clients that wait for their answer, and asks for the state of
random jobs at a fixed rate, over connections that stay. Prints the times from a request to the end of its answer. A request that is
late, because the answer before it was, counts from when it was due.
"""

import argparse
import asyncio
import json
import random
import time

from service import MODEL, Service, quantile

# As many as a poll needs at 100 ms each.
CONNECTIONS = 16


async def answer(reader):
    """Reads an answer: its status, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


class Client:
    def __init__(self, service):
        self.service = service

    async def connect(self):
        return await asyncio.open_connection(self.service.host, self.service.port)

    def text(self, method, path, body=b""):
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.service.host}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def submit(self, count, fields):
        """Makes jobs over one connection, and returns their ids and the seconds of each request."""
        reader, writer = await self.connect()
        ids, times = [], []
        for seed in range(count):
            body = json.dumps({"input": {**fields, "seed": seed}}).encode()
            start = time.perf_counter()
            writer.write(self.text("POST", f"{MODEL}/predictions", body))
            status, text = await answer(reader)
            times.append(time.perf_counter() - start)
            if status != 201:
                raise SystemExit(f"job {seed}: {status}: {text.decode()}")
            ids.append(json.loads(text)["id"])
        writer.close()
        return ids, times

    async def wait(self, fields):
        """A client that waits for its picture: the connection hangs until the end."""
        reader, writer = await self.connect()
        writer.write(self.text("POST", "/predictions", json.dumps({"input": fields}).encode()))
        try:
            await answer(reader)
        finally:
            writer.close()

    async def poll(self, ids, start, every, until, times, draw):
        """Asks for the state of random jobs each `every` seconds from `start` on."""
        reader, writer = await self.connect()
        due = start
        while due < until:
            now = time.perf_counter()
            if now < due:
                await asyncio.sleep(due - now)
            writer.write(self.text("GET", f"/v1/predictions/{draw.choice(ids)}"))
            status, text = await answer(reader)
            times.append(time.perf_counter() - due)
            if status != 200:
                raise SystemExit(f"a poll: {status}: {text.decode()}")
            due += every
        writer.close()


async def measure(service, args):
    client, draw = Client(service), random.Random(1)
    fields = {"prompt": "a red fox in the snow", "num_inference_steps": args.steps, "disable_safety_checker": True}
    ids, submits = await client.submit(args.jobs - args.waiting, fields)
    waiting = [asyncio.create_task(client.wait(fields)) for _ in range(args.waiting)]
    await asyncio.sleep(2)
    times, pollers = [], CONNECTIONS
    every = 60 * pollers / args.polls
    begin = time.perf_counter() + 0.5
    seconds = 60 * args.minutes
    ticks, wall = service.ticks(), time.perf_counter()
    polls = [
        client.poll(ids, begin + every * i / pollers, every, begin + seconds, times, random.Random(draw.random()))
        for i in range(pollers)
    ]
    await asyncio.gather(*polls)
    busy = (service.ticks() - ticks) / (time.perf_counter() - wall)
    states = [service.job("prediction", name)["status"] for name in ids]
    hung_up = sum(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return times, submits, busy, states, hung_up


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs in the queue [1000]")
    parser.add_argument("--waiting", type=int, default=50, help="clients that wait, of these jobs [50]")
    parser.add_argument("--polls", type=int, default=10000, help="polls a minute [10000]")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--steps", type=int, default=30, help="steps of each picture [30]")
    parser.add_argument("options", nargs="*", help="options of the service, after --")
    args = parser.parse_args()
    with Service(args.binary, f"--max-queue={args.jobs + 100}", *args.options) as service:
        times, submits, busy, states, over = asyncio.run(measure(service, args))
        milliseconds = [1000 * value for value in times]
        done, left = states.count("succeeded"), states.count("starting")
        print(f"{len(times)} polls in {args.minutes:g} minutes, beside {args.jobs} jobs and {args.waiting} waiting clients")
        print(f"the service took {busy:.2f} processors; {done} jobs were done meanwhile, {left} still wait; {over} waiting clients were answered")
        print(f"a job is taken in within {1000 * quantile(submits, 0.5):.2f} ms (p50), {1000 * quantile(submits, 0.99):.2f} ms (p99)")
        print("| p50 | p90 | p99 | p99.9 | most |\n|---|---|---|---|---|")
        print("| " + " | ".join(f"{quantile(milliseconds, part):.2f} ms" for part in (0.5, 0.9, 0.99, 0.999, 1)) + " |")
        memory = service.memory()
        print(f"memory {memory[0] / 1e6:.0f} MB, without files {memory[1] / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
