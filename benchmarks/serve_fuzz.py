"""Bodies made to be large or slow, against a real server: its peak memory, and how long its event loop was held.

    python benchmarks/serve_fuzz.py       (Linux; five minutes)

Every route gets each hostile value as its body, and as each of its options: lists of empty objects, of numbers, of
nulls, nests, keys, escapes, of 0.4, 4 and 18 MB (the limit is 20). Then come small bodies made by chance: valid ones
that are cut, joined, wrapped and flipped. The server is a process of its own. Memory is what the kernel notes as the
most that was resident during a request, over what was resident before it; the loop is held as long as one callback
takes, in processor time of the loop's thread. Writes results/serve_fuzz.json, and fails beyond the limits.
"""

import argparse
import datetime
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

import history
from diptych.runtime import hardware

SEED, RANDOM = 0, 2_000
SIZES = (400_000, 4_000_000, 18_000_000)  # bytes
MOST_TIMES, CONSTANT = 10, 64 * 2**20  # of a body, and bytes: what the model takes for what passes
MOST_HELD = 0.2  # s of processor time

IMAGE = (
    b'"data:image/png;base64,'
    b'iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf7gP9i18U1AAAAABJRU5ErkJggg=="'
)
VALID: dict[str, list[tuple[bytes, bytes]]] = {
    "/v1/embeddings": [(b"input", b'"a"')],
    "/classify": [(b"image", IMAGE), (b"labels", b'["a","b"]')],
    "/search": [],
}
PIECES = (b"[", b"]", b"{", b"}", b",", b":", b'"', b"1e999", b"NaN", b"null", b"\\ud800", b"\xff")

# Runs in the server's process; answers a line on standard input with the longest callback since the last line.
WATCHED = """
import asyncio, sys, threading, time
longest = 0.0
run = asyncio.Handle._run
def measured(handle):
    global longest
    start = time.thread_time()
    run(handle)
    longest = max(longest, time.thread_time() - start)
asyncio.Handle._run = measured
def answer():
    global longest
    for _ in sys.stdin:
        print(longest, flush=True)
        longest = 0.0
threading.Thread(target=answer, daemon=True).start()
from diptych.cli.main import main
sys.exit(main(["serve", "--port", "0", *sys.argv[1:]]))
"""


def hostile(size: int) -> dict[str, bytes]:
    """Values of about so many bytes."""
    items = {"objects": b"{}", "lists": b"[]", "numbers": b"1", "nulls": b"null", "texts": b'"a"', "pairs": b'{"a":1}'}
    lists = {name: b"[" + (item + b",") * (size // (len(item) + 1)) + item + b"]" for name, item in items.items()}
    return lists | {
        "deep lists": b"[" * (size // 2) + b"]" * (size // 2),
        "deep objects": b'{"a":' * (size // 6) + b"1" + b"}" * (size // 6),
        "keys": b"{" + b",".join(b'"%x":1' % i for i in range(size // 11)) + b"}",
        "one key": b'{"' + b"a" * size + b'":1}',
        "text": b'"' + b"a" * size + b'"',
        "text in four bytes": b'"' + b"a" * size + "\N{GRINNING FACE}".encode() + b'"',
        "text of escapes": b'"' + b'\\"' * (size // 2) + b'"',
        "text of code points": b'"' + b"\\u0041" * (size // 6) + b'"',
        "no end": b'"' + b"a" * size,
        "digits": b"1" * size,
        "wrong items": b"[" + b"[]," * 8_000 + b"[]]" + b" " * max(0, size - 24_000),
        "long texts": b"[" + b",".join([b'"' + b"a b " * 2_000 + b'"'] * (size // 8_000)) + b"]",
    }


def requests(schema: Any, size: int) -> Iterator[tuple[str, str, str, bytes]]:
    """Method, path, what it is, and the body."""
    values = hostile(size)
    for path, operations in schema["paths"].items():
        [(method, operation)] = operations.items()
        place = path.replace("{id}", "x")
        for name, value in values.items():
            yield method, place, f"{name} as the body", value
        if "requestBody" in operation:
            model = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
            for option in schema["components"]["schemas"][model]["properties"]:
                others = b"".join(b'"%s":%s,' % one for one in VALID[path] if one[0] != option.encode())
                for name, value in values.items():
                    yield method, place, f"{name} as {option}", b'{%s"%s":%s}' % (others, option.encode(), value)


def chance(rng: random.Random) -> bytes:
    """A body that was valid once."""
    valid = [
        b'{"input": ["a red apple", {"text": "a boat"}], "encoding_format": "base64", "truncate": true}',
        b'{"image": "iVBORw0KGgo=", "labels": ["a", "b"], "templates": ["{}", "a {}"]}',
        b'{"text": "a", "without": "b", "count": 3, "filters": {"after": "2023", "near": [1, 2, 3], "folder": "x"}}',
        b'{"like": "abc", "filters": {"min_side": 5, "camera": "x"}}',
    ]
    body = rng.choice(valid)
    for _ in range(rng.randint(1, 4)):
        at, other = rng.randrange(len(body) + 1), rng.choice(valid)
        extra = rng.choice((*PIECES, other))
        match rng.randrange(5):
            case 0:
                body = body[:at]
            case 1:
                body = body[:at] + extra + body[at:]
            case 2:
                body = body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
            case 3:
                body = b"[" * rng.randint(1, 300) + body
            case _:
                old, new = rng.choice((b'"a"', b"3", b"true", b'"x"')), rng.choice((b"{}", b"[]", b"-1", extra))
                body = body.replace(old, new)
    return body


class Server:
    def __init__(self, options: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCHED, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        found = re.search(r"http://\S+(?=/)", self.process.stdout.readline())
        assert found
        self.url = found[0]
        self._folder = Path(f"/proc/{self.process.pid}")

    def held(self) -> float:
        """The longest callback since the last call, s of processor time."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def memory(self, what: str) -> int:
        """Bytes: VmRSS now, VmHWM the most since `forget`."""
        found = re.search(rf"{what}:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found
        return 1024 * int(found[1])

    def forget(self) -> None:
        (self._folder / "clear_refs").write_text("5")


def measure(server: Server, http: httpx2.Client, cases: Iterator[tuple[str, str, str, bytes]]) -> dict[str, Any]:
    """The worst of some requests."""
    statuses: dict[str, int] = {}
    most = {"MB": 0.0, "times the body, beyond the constant": 0.0, "by": ""}
    longest = {"ms": 0.0, "by": ""}
    for method, path, what, body in cases:
        before = server.memory("VmRSS")
        server.forget()
        server.held()
        answer = http.request(method, path, content=body, headers={"content-type": "application/json"})
        held, used = server.held(), server.memory("VmHWM") - before
        statuses[str(answer.status_code)] = statuses.get(str(answer.status_code), 0) + 1
        if answer.status_code >= 500:
            print(method, path, what, answer.text[:300])
        if used > most["MB"] * 2**20:
            times = max(0.0, (used - CONSTANT) / max(1, len(body)))
            most = {"MB": round(used / 2**20, 1), "times the body, beyond the constant": round(times, 2)}
            most["by"] = f"{method} {path}: {what}"
        if held > longest["ms"] / 1000:
            longest = {"ms": round(1000 * held, 1), "by": f"{method} {path}: {what}"}
    return {"by status": statuses, "most memory": most, "loop held longest": longest}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--library", default="", help="a folder of pictures, so that searches do more than be refused")
    arguments = parser.parse_args()
    server = Server(["--library", arguments.library] if arguments.library else [])
    rng = random.Random(SEED)
    try:
        with httpx2.Client(base_url=server.url, timeout=120) as http:
            schema = http.get("/openapi.json").json()
            for text in ("a", "a b " * 15):  # what the first forward passes prepare stays
                http.post("/v1/embeddings", json={"input": [text] * 256})
            rows = [
                {"bytes of a body": size, **measure(server, http, requests(schema, size))} for size in arguments.sizes
            ]
            posts = [path for path, operations in schema["paths"].items() if "post" in operations]
            cases = (("post", rng.choice(posts), "by chance", chance(rng)) for _ in range(RANDOM))
            rows.append({"bytes of a body": "small, by chance", **measure(server, http, cases)})
    finally:
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
    result = {
        "what": "hostile bodies on every route and in every option of a server with its default limits",
        "limits": f"memory {MOST_TIMES} times the body + {CONSTANT // 2**20} MB, loop held {1000 * MOST_HELD:g} ms",
        "exit code": code,
        "load of the machine, 5 min": round(os.getloadavg()[1], 1),
        "n": RANDOM,
        "seed": SEED,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "rows": rows,
    }
    history.write(history.RESULTS / "serve_fuzz.json", result, keys=("bytes of a body",))
    print(json.dumps(result, indent=2))
    for row in rows:
        assert row["most memory"]["times the body, beyond the constant"] < MOST_TIMES, row
        assert row["loop held longest"]["ms"] < 1000 * MOST_HELD, row
        assert not any(status.startswith("5") for status in row["by status"]), row


if __name__ == "__main__":
    main()
