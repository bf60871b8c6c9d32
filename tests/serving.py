"""What the tests of the server share: a tiny model, a library in memory, and clients without a network."""

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import numpy as np
from PIL import Image

from diptych.data.images import Preprocess, open_image
from diptych.data.tokenizer import Tokenizer
from diptych.errors import DataError
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.serve.app import create_app
from diptych.serve.browse import Browser
from diptych.serve.gallery import Gallery
from diptych.serve.libraries import Libraries
from diptych.serve.service import Service
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.where import HeatMaps, Locator
from foreign_tokenizers import word_piece
from processes import started

T = TypeVar("T")

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 210)}


def tiny_bundle() -> Bundle:
    tokenizer = Tokenizer.train(["a red kite", "a blue boat", "a red boat"] * 3, vocab_size=530, context_length=16)
    config = preset("tiny-vit")
    text = dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size, context_length=16)
    model = CLIP(dataclasses.replace(config, text=text), generator(0)).eval()
    return Bundle(model=model, preprocess=Preprocess(image_size=config.image.image_size), tokenizer=tokenizer)


def latin_bundle() -> Bundle:
    """The same with a tokenizer of few words, which makes one token of each that it does not have."""
    return dataclasses.replace(tiny_bundle(), tokenizer=Tokenizer(word_piece(), context_length=16))


def picture_file(colour: str = "red", size: tuple[int, int] = (40, 30), kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **options)
    return file.getvalue()


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


@dataclass(frozen=True)
class Row:
    path: Path
    score: float
    width: int = 40
    height: int = 30
    date: datetime.datetime | None = None
    camera: str = ""
    time: float | None = None


class PlainLibrary:
    """Every picture of a folder, compared one by one."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.folder = folder
        self._bundle = bundle
        self._features = {path: bundle.encode_images([path])[0] for path in sorted(folder.rglob("*.png"))}

    def __len__(self) -> int:
        return len(self._features)

    def nearest(self, features: np.ndarray, *, count: int, filters: Any) -> Sequence[Row]:
        rows = [Row(path, float(one @ features)) for path, one in self._features.items()]
        below = filters.folder if filters else ""
        rows = [row for row in rows if row.path.relative_to(self.folder).as_posix().startswith(below)]
        return sorted(rows, key=lambda row: -row.score)[:count]

    def like(self, path: Path, *, count: int, filters: Any) -> Sequence[Row]:
        if path not in self._features:
            raise DataError(f"{path} is not there")
        rows = self.nearest(self._features[path], count=count + 1, filters=filters)
        return [row for row in rows if row.path != path][:count]

    def why(self, path: Path, text: str) -> HeatMaps:
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(f"{path} is elsewhere")
        return Locator(self._bundle, [text])(path)

    def thumbnail(self, path: Path, *, side: int, seconds: float | None = None) -> bytes:
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(f"{path} is elsewhere")
        image = open_image(path)
        image.thumbnail((side, side))
        file = io.BytesIO()
        image.save(file, "JPEG")
        return file.getvalue()


def with_client(
    bundle: Bundle,
    work: Callable[[httpx2.AsyncClient], Awaitable[T]],
    *,
    library: PlainLibrary | None = None,
    browsers: Sequence[Browser] = (),
    can_trash: bool = False,
    is_local: bool = False,
    strip_location: bool = False,
    api_key: str = "",
    hosts: Sequence[str] | None = None,
    **options: Any,
) -> T:
    """Run some requests against an application of their own."""

    async def run() -> T:
        galleries = [*([Gallery(library)] if library else []), *(browser.gallery for browser in browsers)]
        first = galleries[0] if galleries else None
        service = Service(bundle, name="tiny", gallery=first, others=galleries[1:], **options)
        libraries = Libraries(service, browsers, can_trash=can_trash, is_local=is_local, strip_location=strip_location)
        app: Any = create_app(service, libraries=libraries, api_key=api_key, hosts=hosts)
        transport = httpx2.ASGITransport(app=app)
        try:
            async with httpx2.AsyncClient(transport=transport, base_url="http://test", timeout=30) as client:
                return await work(client)
        finally:
            service.close()

    return asyncio.run(run())


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    url: str

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit code, and what it wrote on standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@contextlib.contextmanager
def running(*options: str | Path, first: str = "", **environment: str) -> Iterator[Server]:
    """`diptych serve` as a process of its own; `first` is Python that runs in it before the command."""
    code = f"import sys\n{first}\nfrom diptych.cli.main import main\nsys.exit(main())"
    start = ["-c", code] if first else ["-m", "diptych"]
    command = [sys.executable, *start, "serve", "--port", "0", *map(str, options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started(command, env={**os.environ, **environment}, **pipes) as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"http://\S+(?=/)", line)
        assert found, process.communicate(timeout=60)[1]
        yield Server(process, found[0])
