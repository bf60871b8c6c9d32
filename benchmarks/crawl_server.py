"""The hosts of a made crawl: 127.0.0.1 to 127.0.0.8, one process, files from one blob and faults as its index says.

python benchmarks/crawl_server.py FOLDER PORT
"""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

HOSTS = tuple(f"127.0.0.{number}" for number in range(1, 9))
_SILENT_SECONDS = 60
_PAGE = b"<!doctype html><title>Moved</title><p>The picture that you are looking for is not here any more."


class Site:
    """Answers what the crawl's index says of a path."""

    def __init__(self, folder: Path) -> None:
        self._blob = (folder / "pictures.bin").read_bytes()
        self._index: dict[str, dict[str, Any]] = json.loads((folder / "pictures.json").read_text())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                if not await self._answer(path, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        if path == "/robots.txt":
            told: dict[str, Any] = {"type": "text/plain"}
            body = b"User-agent: *\nDisallow: /private/\n"
        else:
            told = self._index.get(path, {"status": 404, "type": "text/html"})
            start = told.get("at", 0)
            body = _PAGE if told.get("page") else self._blob[start : start + told.get("length", 0)]
        if told.get("silent"):
            await asyncio.sleep(_SILENT_SECONDS)
            return False
        cut = told.get("cut", False)
        head = [f"HTTP/1.1 {told.get('status', 200)} X", f"Content-Type: {told['type']}"]
        head += [f"Content-Length: {len(body) + cut * 1000}", *told.get("headers", [])]
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        await writer.drain()
        return not cut


async def main() -> None:
    site, port = Site(Path(sys.argv[1])), int(sys.argv[2])
    servers = [await asyncio.start_server(site.serve, host, port) for host in HOSTS]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
