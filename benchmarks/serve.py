"""A server under load: 64 clients for 60 s on loopback; answers lost, waiting times, memory, and what batching gains.

    python benchmarks/serve.py       (Linux; three minutes)

The server is a process of its own, and so are the clients, on the same cores: what clients cost is part of the times.
Each client sends its next request when the last one is answered. Requests are a picture of 160 x 120 px as PNG, or five
words, in turn. The same load is sent to a server that computes each request alone (--max-batch 1).

The server's memory rises while batches of new sizes come, as oneDNN keeps what it prepared for each size (at most 1,024
things), and then no more: the curve tells it. Writes results/serve.json.
"""

import argparse
import asyncio
import base64
import datetime
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import httpx2
import numpy as np
from PIL import Image

import history
from diptych.runtime import hardware

CLIENTS, SECONDS, SEED = 64, 60, 0
LONGEST = 30.0  # s, after which an answer counts as lost


def bodies() -> list[bytes]:
    """Requests, a picture and a text in turn."""
    rng = np.random.default_rng(SEED)
    found = []
    for number in range(32):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(file, "PNG")
        picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        inputs = ({"image": picture}, f"a drawing of {number} things")
        found += [json.dumps({"input": one, "encoding_format": "base64"}).encode() for one in inputs]
    return found


async def load(url: str, seconds: float) -> dict[str, Any]:
    """Answers by status, times in ms, and the server's memory each quarter of the time."""
    requests = bodies()
    times: list[float] = []
    statuses: dict[str, int] = {}
    end = time.perf_counter() + seconds
    limits = httpx2.Limits(max_connections=CLIENTS + 1, max_keepalive_connections=CLIENTS + 1)
    async with httpx2.AsyncClient(base_url=url, timeout=LONGEST, limits=limits) as http:

        async def client(number: int) -> None:
            i = number
            while time.perf_counter() < end:
                start = time.perf_counter()
                try:
                    headers = {"content-type": "application/json"}
                    answer = await http.post("/v1/embeddings", content=requests[i % len(requests)], headers=headers)
                    is_whole = answer.status_code != 200 or len(answer.json()["data"]) == 1
                    status = str(answer.status_code) if is_whole else "broken"
                except httpx2.HTTPError as error:
                    status = f"lost: {type(error).__name__}"
                statuses[status] = statuses.get(status, 0) + 1
                times.append(1000 * (time.perf_counter() - start))
                i += 1

        async def memory() -> float:
            found = re.search(r"^process_resident_memory_bytes (\S+)", (await http.get("/metrics")).text, re.MULTILINE)
            assert found
            return round(float(found[1]) / 2**20, 1)

        async def watch() -> dict[str, float]:
            found = {}
            for share in (0.25, 0.5, 0.75, 1.0):
                await asyncio.sleep(max(0.0, end - seconds * (1 - share) - time.perf_counter()))
                found[f"{share * seconds:g} s"] = await memory()
            return found

        cold = await memory()
        watched = asyncio.create_task(watch())
        await asyncio.gather(*map(client, range(CLIENTS)))
        curve = {"0 s": cold, **await watched}
        text = (await http.get("/metrics")).text
    sizes = {}
    for kind in ("picture", "text"):
        total, count = (
            float(re.search(rf'diptych_batch_size_{part}{{kind="{kind}"}} (\S+)', text)[1])  # pyright: ignore[reportOptionalSubscript]
            for part in ("sum", "count")
        )
        sizes[kind] = round(total / count, 1)
    times.sort()
    return {
        "answers": len(times),
        "by status": statuses,
        "lost": sum(count for status, count in statuses.items() if not status.isdigit()),
        "answers/s": round(len(times) / seconds, 1),
        "p50 ms": round(times[len(times) // 2], 1),
        "p99 ms": round(times[int(len(times) * 0.99)], 1),
        "longest ms": round(times[-1], 1),
        "mean batch": sizes,
        "server's memory, MB": curve,
    }


def measure(options: list[str], seconds: float) -> dict[str, Any]:
    """Start a server, load it, stop it."""
    command = [sys.executable, "-m", "diptych", "serve", "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        url = re.search(r"http://\S+(?=/)", server.stdout.readline())
        assert url
        result = asyncio.run(load(url[0], seconds))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    return {"options": " ".join(options), **result, "exit code": code}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--model", default="", help="by default the model that ships with diptych")
    arguments = parser.parse_args()
    model = ["--model", arguments.model] if arguments.model else []
    joined = measure(model, arguments.seconds)
    alone = measure([*model, "--max-batch", "1"], arguments.seconds)
    result = {
        "what": f"{CLIENTS} clients for {arguments.seconds:g} s on loopback; each sends on when it was answered",
        "model": arguments.model or "the default model",
        "answers/s joined / alone": round(joined["answers/s"] / alone["answers/s"], 2),
        "load of the machine, 5 min": round(os.getloadavg()[1], 1),
        "n": 1,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": [joined, alone],
    }
    history.write(history.RESULTS / "serve.json", result, keys=("options",))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
