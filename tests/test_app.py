import asyncio
import base64
import gzip
import io
import json
import os
import resource
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from diptych.search.filters import parse_day
from diptych.serve.limits import Limits
from diptych.serve.messages import ErrorAnswer
from diptych.weights.bundle import Bundle
from serving import COLOURS, PlainLibrary, data_url, latin_bundle, picture_file, tiny_bundle, with_client

RED = data_url(picture_file())


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture(scope="module")
def library(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> PlainLibrary:
    folder = tmp_path_factory.mktemp("library")
    (folder / "deeper").mkdir()
    for place in ("red.png", "green.png", "deeper/blue.png"):
        (folder / place).write_bytes(picture_file(COLOURS[Path(place).stem]))  # pyright: ignore[reportArgumentType]
    return PlainLibrary(folder, bundle)


def asked(bundle: Bundle, path: str, body: Any = None, **options: Any) -> httpx2.Response:
    async def work(client: httpx2.AsyncClient) -> httpx2.Response:
        return await (client.get(path) if body is None else client.post(path, json=body))

    return with_client(bundle, work, **options)


def error_of(response: httpx2.Response) -> Any:
    return ErrorAnswer.model_validate_json(response.content).error


def test_embeddings_have_openais_shape_in_the_order_of_the_inputs(bundle: Bundle):
    inputs = ["a red kite", {"image": RED}, {"text": "a boat"}]
    answer = asked(bundle, "/v1/embeddings", {"input": inputs, "model": "tiny", "user": "x"}).json()
    assert answer.keys() == {"object", "data", "model", "usage"}
    assert (answer["object"], answer["model"]) == ("list", "tiny")
    assert [(one["object"], one["index"]) for one in answer["data"]] == [("embedding", i) for i in range(3)]
    expected = np.stack(
        [
            bundle.encode_texts(["a red kite"])[0],
            bundle.encode_images([picture_file()])[0],
            bundle.encode_texts(["a boat"])[0],
        ]
    )
    np.testing.assert_allclose([one["embedding"] for one in answer["data"]], expected, atol=1e-6)
    tokens = bundle.tokenizer.encode(["a red kite", "a boat"])
    count = int((tokens == bundle.tokenizer.end_token_id).argmax(axis=1).sum()) + 2
    assert answer["usage"] == {"prompt_tokens": count, "total_tokens": count}


def test_a_model_is_told_as_openais_clients_expect_it(bundle: Bundle):
    async def work(client: httpx2.AsyncClient) -> None:
        [listed] = (await client.get("/v1/models")).json()["data"]
        assert (listed["id"], listed["object"], type(listed["created"])) == ("tiny", "model", int)
        for path in ("/v1/models/tiny", "/v1/models/%74iny"):
            assert (await client.get(path)).json() == listed
        gone = await client.get("/v1/models/openai/gpt")
        assert (gone.status_code, error_of(gone).code) == (404, "model_not_found")
        assert "openai/gpt is not here. This server has tiny." in error_of(gone).message

    with_client(bundle, work)


def test_null_is_as_good_as_left_out(bundle: Bundle):
    options = dict.fromkeys(("model", "encoding_format", "dimensions", "truncate", "user"))
    plain, null = (asked(bundle, "/v1/embeddings", {"input": "a boat", **more}) for more in ({}, options))
    assert plain.status_code == null.status_code == 200
    assert plain.json()["data"] == null.json()["data"]


def test_head_is_answered_where_get_is(bundle: Bundle, library: PlainLibrary):
    async def work(client: httpx2.AsyncClient) -> None:
        [found] = (await client.post("/search", json={"image": RED, "count": 1})).json()["results"]
        for path in ("/", "/page/app.js", "/health", "/metrics", "/v1/models", "/openapi.json", found["thumbnail"]):
            got, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"] == got.headers["content-type"]
            if path != "/metrics":
                assert head.headers["content-length"] == str(len(got.content))
        assert (await client.head("/made/up")).status_code == 404
        assert (await client.head("/search")).status_code == 405

    with_client(bundle, work, library=library)


def test_a_picture_that_the_client_has_is_not_sent_again(bundle: Bundle, library: PlainLibrary):
    async def work(client: httpx2.AsyncClient) -> None:
        [found] = (await client.post("/search", json={"image": RED, "count": 1})).json()["results"]
        tag = (await client.get(found["thumbnail"])).headers["etag"]
        for known, status in ((tag, 304), (f'"x", W/{tag}', 304), ("*", 304), ('"x"', 200)):
            again = await client.get(found["thumbnail"], headers={"if-none-match": known})
            assert (again.status_code, again.headers["etag"]) == (status, tag)
            assert bool(again.content) == (status == 200)
        part = await client.get(found["thumbnail"], headers={"range": "bytes=0-9"})
        assert part.status_code == 200  # all of it, which a server may send

    with_client(bundle, work, library=library)


@pytest.mark.parametrize("after", ["2023", "1999-12-31", "2023-6"])
def test_a_day_may_be_a_year_or_a_month_as_on_the_command_line(
    bundle: Bundle, library: PlainLibrary, after: str, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Any] = []
    monkeypatch.setattr(library, "nearest", lambda _, count, filters: seen.append(filters) or [])
    answer = asked(bundle, "/search", {"text": "a", "filters": {"after": after, "before": None}}, library=library)
    assert answer.status_code == 200
    assert seen[0].after == parse_day(after)


@pytest.mark.parametrize("day", ["soon", "2023-13", "20", "2023-06-30T00:00"])
def test_what_is_no_day_is_one_sentence(bundle: Bundle, library: PlainLibrary, day: str):
    error = error_of(asked(bundle, "/search", {"text": "a", "filters": {"after": day}}, library=library))
    assert "must be like 2023-06-30, 2023-06 or 2023" in error.message


def test_base64_holds_the_same_numbers(bundle: Bundle):
    async def work(client: httpx2.AsyncClient) -> list[Any]:
        bodies = [{"input": "a boat", "encoding_format": kind} for kind in ("float", "base64")]
        return [(await client.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"] for body in bodies]

    plain, packed = with_client(bundle, work)
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == plain


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({"input": []}, 400, "input", "input must hold at least one text or picture"),
        ({"input": [1, 2]}, 400, "input", "Send text as text: token numbers are not read"),
        ({"input": [[1, 2]]}, 400, "input", "Send text as text: token numbers are not read"),
        ({"input": [list(range(100))]}, 400, None, "check_embedding_ctx_length=False"),
        ({"input": ["a", {"image": 3}]}, 400, "input[1].image", "input[1].image must be text."),
        ({"input": {"text": "a", "image": "b"}}, 400, "input[0].text", "input[0].text is not an option"),
        ({"input": "a", "dimensions": "x"}, 400, "dimensions", "dimensions must be a whole number."),
        ({"input": "a", "truncate": 7}, 400, "truncate", "truncate must be true or false."),
        ({"input": "a", "\n" + "x" * 900: 1}, 400, None, "'\\nxxx"),
        ({"input": ["a b"] * 900 + ["a" * 9_000] * 60}, 400, None, "at most 500,000 characters. Got 542,700"),
        ({"input": None}, 400, "input", "input must be a text"),
        ({"input": {"picture": "x"}}, 400, None, "is not an option"),
        ({"inputs": "a"}, 400, "inputs", "inputs is not an option"),
        ({"input": "a", "model": "gpt"}, 404, "model", "gpt is not here. This server has tiny"),
        ({"input": "a", "dimensions": 8}, 400, "dimensions", "no smaller feature. Got 8"),
        (
            {"input": "a", "encoding_format": "int8"},
            400,
            "encoding_format",
            "must be 'float' or 'base64'.",
        ),
        ({"input": ["a", {"image": "?"}]}, 400, None, "input[1]: a picture must be base64"),
        ({"input": {"image": "https://example.org/a.png"}}, 400, None, "URLs are not fetched by this server"),
        ({"input": "a b c d e f g h i j k l m n o p q r"}, 400, None, "must fit 16 tokens"),
        ({"input": ["a"] * 1025}, 400, None, "at most 1,024 texts. Got 1,025"),
        ([], 400, None, "must be a JSON object"),
        ("a", 400, None, "must be a JSON object"),
    ],
)
def test_what_does_not_fit_is_one_sentence(bundle: Bundle, body: Any, status: int, param: str | None, message: str):
    answer = asked(bundle, "/v1/embeddings", body)
    error = error_of(answer)
    assert (answer.status_code, error.type) == (status, "invalid_request_error")
    assert message in error.message
    assert param is None or error.param == param
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"{", "application/json", "the body must be JSON: an object's key must be text"),
        (b"[" * 100_000, "application/json", "must nest at most 8 deep"),
        (b"1" * 5_000, "application/json", "the body must be JSON"),
        (b'{"input": "\xff"}', "application/json", "the body must be JSON"),
        (b'{"input": "\\ud800"}', "application/json", "holds half a surrogate pair"),
        (b'{"input": NaN}', "application/json", "the body must be JSON"),
        (b'{"input": "a", "dimensions": 1e999}', "application/json", "a number must be finite"),
        (b'{"input": "a", "input": "b"}', "application/json", "'input' must stand once in an object, and stands twice"),
        (b'{"input": "a"}', "text/plain", "sent with Content-Type: application/json"),
        (b'{"input": "a"}', "application/x-www-form-urlencoded", "sent with Content-Type: application/json"),
        (b'{"input": "a"}', "application/json; charset=utf-16", "must be a JSON object in UTF-8"),
        (b"", "application/json", "the body must be JSON: a value is missing"),
    ],
)
def test_bodies_that_are_no_json(bundle: Bundle, content: bytes, kind: str, message: str):
    async def work(client: httpx2.AsyncClient) -> httpx2.Response:
        return await client.post("/v1/embeddings", content=content, headers={"content-type": kind})

    answer = with_client(bundle, work)
    assert answer.status_code == 400
    assert message in error_of(answer).message


def test_a_packed_body_is_refused_and_not_unpacked(bundle: Bundle):
    async def work(client: httpx2.AsyncClient) -> httpx2.Response:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        return await client.post("/v1/embeddings", content=gzip.compress(b'{"input": "a"}'), headers=headers)

    answer = with_client(bundle, work)
    assert (answer.status_code, error_of(answer).code) == (400, "content_encoding")
    assert "do not pack it" in error_of(answer).message


SIZE = 2**20  # bytes
HOSTILE: dict[str, bytes] = {
    "objects": b"[" + b"{}," * (SIZE // 3) + b"{}]",
    "lists": b"[" + b"[]," * (SIZE // 3) + b"[]]",
    "numbers": b"[" + b"1," * (SIZE // 2) + b"1]",
    "texts": b"[" + b'"a",' * (SIZE // 4) + b'"a"]',
    "nulls": b"[" + b"null," * (SIZE // 5) + b"null]",
    "deep lists": b"[" * (SIZE // 2) + b"]" * (SIZE // 2),
    "deep objects": b'{"a":' * (SIZE // 6) + b"1" + b"}" * (SIZE // 6),
    "keys": b"{" + b",".join(b'"%x":1' % i for i in range(SIZE // 10)) + b"}",
    "long key": b'{"' + b"a" * SIZE + b'":1}',
    "long text": b'"' + b"a" * SIZE + b'"',
    "text in four bytes": b'"' + b"a" * SIZE + "\N{GRINNING FACE}".encode() + b'"',
    "escapes": b'"' + b'\\"' * (SIZE // 2) + b'"',
    "digits": b"1" * SIZE,
    "8,000 wrong items": b"[" + b"[]," * 7_990 + b"[]]",
    "many long texts": b"[" + b",".join(b'"%s"' % (b"a b " * 2_000) for _ in range(SIZE // 8_000)) + b"]",
}


def hostile_requests(schema: Any) -> Iterator[tuple[str, str, bytes]]:
    """Each hostile value as the body of every route, and as each of its options."""
    good = {"/v1/embeddings": {"input": "a"}, "/classify": {"image": RED, "labels": ["a", "b"]}, "/search": {}}
    good |= {"/library/{id}/why": {}}
    for path, operations in schema["paths"].items():
        [(method, operation)] = operations.items()
        place = path.replace("{id}", "x")
        yield from ((method, place, value) for value in HOSTILE.values())
        if "requestBody" in operation:
            name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
            for option in schema["components"]["schemas"][name]["properties"]:
                others = [f'"{key}":{json.dumps(one)},' for key, one in good.get(path, {}).items() if key != option]
                start = f'{{{"".join(others)}"{option}":'.encode()
                yield from ((method, place, start + value + b"}") for value in HOSTILE.values())


def processor_seconds() -> float:
    """Of this thread: no clock, which would tell what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_utime + usage.ru_stime


def test_on_no_route_a_body_becomes_a_large_thing_or_stops_the_loop(
    bundle: Bundle, library: PlainLibrary, monkeypatch: pytest.MonkeyPatch
):
    longest = 0.0
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        nonlocal longest
        before = processor_seconds()
        run(handle)
        longest = max(longest, processor_seconds() - before)

    async def work(client: httpx2.AsyncClient) -> None:
        nonlocal longest
        schema = (await client.get("/openapi.json")).json()
        routes = set()
        for method, place, body in hostile_requests(schema):
            routes.add(place)
            tracemalloc.start()
            await asyncio.sleep(0)  # what the test did until now is no part of it
            longest = 0.0
            answer = await client.request(method, place, content=body, headers={"content-type": "application/json"})
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            about = (method, place, body[:60], len(body), answer.status_code)
            assert answer.status_code in ((200, 404) if method == "get" else (200, 400, 403, 404)), about
            assert peak < 10 * len(body) + 4 * 2**20, (*about, peak)
            assert longest < 0.2, (*about, longest)
        assert len(routes) == 26

    monkeypatch.setattr(asyncio.Handle, "_run", measured)
    with_client(bundle, work, library=library)


def test_templates_are_not_put_into_labels_before_both_are_known_to_be_short(bundle: Bundle):
    body = {"image": RED, "labels": [str(i) for i in range(1000)], "templates": ["a" * 10**6 + "{}"]}
    tracemalloc.start()
    answer = asked(bundle, "/classify", body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (answer.status_code, error_of(answer).code) == (400, "text_invalid")
    assert peak < 10 * 2**20  # put into each other they have a gigabyte


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(size: int) -> bytes:
    """So many zero bytes, deflated."""
    packer = zlib.compressobj(1)
    block = bytes(2**20)
    return b"".join(packer.compress(block[: size - at]) for at in range(0, size, 2**20)) + packer.flush()


def png_of(width: int, height: int, *, pixels: bytes, extra: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)  # 1 bit a pixel, grey
    data = chunk(b"IDAT", pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + data + chunk(b"IEND", b"")


def huge_png() -> bytes:
    """30,000 x 30,000 pixels, whole and valid, in half a megabyte."""
    return png_of(30_000, 30_000, pixels=packed(30_000 * (1 + 30_000 // 8)))


def text_bomb_png() -> bytes:
    """One pixel, and a comment of 100 MB packed into half of one."""
    return png_of(1, 1, pixels=packed(2), extra=chunk(b"zTXt", b"Comment\0\0" + packed(100 * 2**20)))


def pixel_bomb_png() -> bytes:
    """One pixel by its head, and 100 MB of pixels behind it."""
    return png_of(1, 1, pixels=packed(100 * 2**20))


def animated_gif() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def ico_bomb() -> bytes:
    """An icon that says 16 x 16 and holds a PNG of 30,000 x 30,000."""
    png = huge_png()
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png


# What each must end in: a feature by the stated rules of pictures, or a refusal.
PICTURES: dict[str, tuple[Any, int, str]] = {
    "one pixel": (lambda: picture_file(size=(1, 1)), 200, ""),
    "animated gif": (animated_gif, 200, ""),  # its first frame counts
    "huge png": (huge_png, 413, "image_too_large"),
    "text bomb": (text_bomb_png, 200, ""),  # text is not unpacked
    "pixel bomb": (pixel_bomb_png, 200, ""),  # only the pixel that the head tells of is unpacked
    "icon bomb": (ico_bomb, 413, "image_too_large"),
    "truncated jpeg": (lambda: picture_file(size=(400, 300), kind="JPEG")[:900], 400, "image_truncated"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 400, "image_unsupported"),
    "strip": (lambda: picture_file(size=(100_000, 1)), 200, ""),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "image_unsupported"),
    "nothing known": (lambda: b"\0" * 1000, 400, "image_not_an_image"),
    "web page": (lambda: b"<!doctype html><html></html>", 400, "image_not_an_image"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_hostile_pictures_end_cleanly_and_the_next_is_served(bundle: Bundle, name: str):
    make, status, code = PICTURES[name]
    file = make()

    async def work(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        bodies = [{"input": {"image": data_url(data)}} for data in (file, picture_file())]
        return [await client.post("/v1/embeddings", json=body) for body in bodies]

    bad, good = with_client(bundle, work)
    assert bad.status_code == status, bad.text
    if status == 200:
        features = np.array(bad.json()["data"][0]["embedding"])
        np.testing.assert_allclose(features, bundle.encode_images([file])[0], atol=1e-6)
    else:
        assert error_of(bad).code == code
    assert good.status_code == 200


def test_a_gigabyte_is_not_read(bundle: Bundle):
    sent = 0

    async def gigabyte():
        nonlocal sent
        for _ in range(1024):
            sent += 1
            yield bytes(2**20)

    async def work(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        headers = {"content-type": "application/json"}
        chunked = await client.post("/v1/embeddings", content=gigabyte(), headers=headers)
        told = await client.post("/classify", content=b"", headers={**headers, "content-length": str(2**30)})
        return [chunked, told, await client.post("/v1/embeddings", json={"input": "a"})]

    chunked, told, after = with_client(bundle, work)
    assert sent == 21 + 20  # until it is too much, and as much again that is thrown away
    assert [chunked.status_code, told.status_code, after.status_code] == [413, 413, 200]
    assert "at most 20,971,520 bytes" in error_of(chunked).message


def test_a_full_queue_says_when_to_come_again(bundle: Bundle):
    answer = None

    async def work(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        body = {"input": [{"image": RED}] * 4}
        return await asyncio.gather(*(client.post("/v1/embeddings", json=body) for _ in range(3)))

    answers = with_client(bundle, work, limits=Limits(pictures=4, pictures_waiting=8))
    [answer] = [one for one in answers if one.status_code != 200]
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert error_of(answer).type == "rate_limit_error"


def test_classify_gives_the_best_label_first(bundle: Bundle):
    labels = ["a red kite", "a blue boat", "a boat"]
    answer = asked(bundle, "/classify", {"image": RED, "labels": labels, "templates": ["{}", "the {}"]}).json()
    shares = [one["probability"] for one in answer["labels"]]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert {one["label"] for one in answer["labels"]} == set(labels)


def test_a_map_says_why_a_picture_was_found(bundle: Bundle, library: PlainLibrary):
    async def work(client: httpx2.AsyncClient) -> None:
        [found] = (await client.post("/search", json={"text": "a red kite", "count": 1})).json()["results"]
        path = found["picture"].replace("/picture", "/why")
        answer = await client.post(path, json={"text": "a red kite"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
        plain = (await client.get(found["picture"])).content
        with Image.open(io.BytesIO(answer.content)) as drawn, Image.open(io.BytesIO(plain)) as image:
            assert drawn.size == image.size
            assert drawn.tobytes() != image.tobytes()
        for body, status in (({"text": ""}, 400), ({"text": "a" * 20_000}, 400), ({}, 400)):
            assert (await client.post(path, json=body)).status_code == status
        gone = await client.post("/library/red.png/why", json={"text": "a red kite"})
        assert gone.status_code == 404
        assert str(library.folder) not in gone.text

    with_client(bundle, work, library=library)


def test_found_pictures_are_seen_by_id_only(bundle: Bundle, library: PlainLibrary):
    async def work(client: httpx2.AsyncClient) -> None:
        found = (await client.post("/search", json={"image": RED, "count": 2})).json()["results"]
        assert [found[0]["name"], len(found)] == ["red.png", 2]
        small = await client.get(found[0]["thumbnail"])
        assert small.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(small.content)) as image:
            assert image.size == (40, 30)
        like = (await client.post("/search", json={"like": found[0]["id"]})).json()["results"]
        assert {one["name"] for one in like} == {"green.png", "deeper/blue.png"}
        for path in ("/library/red.png/picture", "/library/..%2fred.png/picture", "/library/%00/thumbnail"):
            gone = await client.get(path)
            assert gone.status_code == 404, path
            assert str(library.folder) not in gone.text
        below = {"image": RED, "filters": {"folder": "deeper"}}
        assert [one["name"] for one in (await client.post("/search", json=below)).json()["results"]] == [
            "deeper/blue.png"
        ]

    with_client(bundle, work, library=library)


@pytest.mark.parametrize("folder", ["../..", "/etc", "deeper/../../..", "\0"])
def test_a_filter_does_not_lead_out_of_the_library(bundle: Bundle, library: PlainLibrary, folder: str):
    answer = asked(bundle, "/search", {"text": "a", "filters": {"folder": folder}}, library=library)
    assert answer.status_code == 200
    assert answer.json()["results"] == []


def test_health_is_503_when_the_model_fails(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError

    fine = asked(tiny_bundle(), "/health")
    assert (fine.status_code, fine.json()["status"]) == (200, "ok")

    async def work(client: httpx2.AsyncClient) -> httpx2.Response:
        monkeypatch.setattr(Bundle, "encode_images", fail)
        return await client.get("/health")

    failing = with_client(tiny_bundle(), work)
    assert (failing.status_code, failing.json()["status"]) == (503, "failing")
    assert failing.json()["reason"] == "the model failed (ArithmeticError)"


def test_a_fault_of_ours_is_a_500_without_its_inside(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError("/a/secret/path")

    async def work(client: httpx2.AsyncClient) -> None:
        with pytest.raises(ArithmeticError):  # so that the server's log has it
            await client.post("/v1/embeddings", json={"input": "a"})
        client._transport.raise_app_exceptions = False  # pyright: ignore[reportAttributeAccessIssue]
        answer = await client.post("/v1/embeddings", json={"input": "a"})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert error_of(answer).type == "server_error"

    monkeypatch.setattr(Bundle, "encode_texts", fail)
    with_client(bundle, work)


def test_metrics_count_by_route_and_not_by_what_clients_make_up(bundle: Bundle):
    async def work(client: httpx2.AsyncClient) -> str:
        await client.post("/v1/embeddings", json={"input": ["a", "b"]})
        await client.post("/v1/embeddings", json={"input": {"image": "?"}})
        for i in range(5):
            await client.get(f"/made/up/{i}")
            await client.get(f"/library/{i}/thumbnail")
        return (await client.get("/metrics")).text

    text = with_client(bundle, work)
    for line in (
        'diptych_requests_total{route="/v1/embeddings",status="200"} 1.0',
        'diptych_requests_total{route="/v1/embeddings",status="400"} 1.0',
        'diptych_requests_total{route="none",status="404"} 5.0',
        'diptych_requests_total{route="/library/{id}/thumbnail",status="404"} 5.0',
        'diptych_batch_size_sum{kind="text"} 2.0',
        'diptych_bad_pictures_total{cause="not an image"} 1.0',
        "diptych_requests_in_hand 1.0",
        'diptych_waiting{kind="picture"} 0.0',
        "process_resident_memory_bytes",
    ):
        assert line in text, line


def test_the_page_is_served_and_asks_nobody_else(bundle: Bundle):
    async def work(client: httpx2.AsyncClient) -> None:
        for path, kind in (("/", "text/html"), ("/page/style.css", "text/css"), ("/page/app.js", "text/javascript")):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            assert "script-src 'self'" in answer.headers["content-security-policy"]
            text = answer.text.replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text
            assert "https:" not in text
            assert "innerHTML" not in text
            assert " style=" not in text
            assert "onclick" not in text
            assert 'href="/' not in text  # relative, so that it works below a path of a proxy's
            assert 'src="/' not in text
        for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/", "/docs", "/redoc"):
            assert (await client.get(path)).status_code == 404

    with_client(bundle, work)


def test_the_description_is_complete(bundle: Bundle):
    schema = asked(bundle, "/openapi.json", api_key="a long enough key").json()
    assert schema["openapi"].startswith("3.1")
    assert set(schema["paths"]) == {
        *("/v1/embeddings", "/v1/models", "/v1/models/{id}", "/classify", "/search", "/health", "/metrics"),
        *("/library/{id}/thumbnail", "/library/{id}/picture", "/library/{id}/why", "/library/{id}/original"),
        *("/library", "/library/view", "/library/spots", "/library/query", "/library/pictures", "/library/alike"),
        *("/library/shelf", "/library/shelf/search", "/library/shelf/album", "/library/shelf/hidden"),
        *("/library/zip", "/library/{id}/zip", "/library/paths", "/library/trash", "/library/{id}/reveal"),
    }
    for path in schema["paths"].values():
        for operation in path.values():
            assert operation["description"]
            assert "422" not in operation["responses"]
    assert schema["security"] == [{"key": []}]
    assert "HTTPValidationError" not in json.dumps(schema)


def test_a_key_locks_all_but_the_page_and_health(bundle: Bundle):
    async def work(client: httpx2.AsyncClient) -> None:
        assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 401
        headers = {"Authorization": "Bearer a long enough key"}
        assert (await client.post("/v1/embeddings", json={"input": "a"}, headers=headers)).status_code == 200
        assert (await client.get("/health")).status_code == 200

    with_client(bundle, work, api_key="a long enough key")


def test_what_the_model_reads_nothing_of_is_refused_and_what_it_reads_in_part_is_told(tmp_path: Path):
    (tmp_path / "red.png").write_bytes(picture_file())
    latin = latin_bundle()
    some = "this model's tokenizer does not know 1 of 2 words of 'cat 犬'."
    told = [{"text": "cat 犬", "words": 2, "unknown": 1, "message": some}]

    async def work(client: httpx2.AsyncClient) -> None:
        for path, body in (
            ("/classify", {"image": RED, "labels": ["犬", "車"]}),
            ("/search", {"text": "犬"}),
            ("/v1/embeddings", {"input": ["a cat", {"text": "犬"}, {"image": RED}]}),
        ):
            refused = await client.post(path, json=body)
            assert (refused.status_code, error_of(refused).code) == (400, "text_invalid")
            assert error_of(refused).message.startswith("'犬' is no text to this model")
            assert "take a model that reads any letters" in error_of(refused).message
        for path, body in (
            ("/classify", {"image": RED, "labels": ["cat 犬", "the cat"]}),
            ("/search", {"text": "cat 犬"}),
            ("/v1/embeddings", {"input": "cat 犬"}),
        ):
            answer = (await client.post(path, json=body)).json()
            assert answer["unread"] == told, path
        assert (await client.post("/search", json={"text": "the cat"})).json()["unread"] == []
        assert "unread" not in (await client.post("/v1/embeddings", json={"input": "the cat"})).json()
        schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
        for name in ("ClassifyAnswer", "SearchAnswer", "EmbeddingsAnswer"):
            assert schemas[name]["properties"]["unread"]["items"] == {"$ref": "#/components/schemas/UnreadText"}

    with_client(latin, work, library=PlainLibrary(tmp_path, latin))


def test_what_is_private_is_kept_by_no_cache(bundle: Bundle, library: PlainLibrary):
    async def work(client: httpx2.AsyncClient) -> None:
        found = await client.post("/search", json={"image": RED, "count": 1})
        [one] = found.json()["results"]
        kept = [await client.get(path) for path in ("/health", "/metrics", "/made/up", "/library/x/picture")]
        kept += [found, await client.post("/search", content=b"{")]
        assert {answer.headers["cache-control"] for answer in kept} == {"no-store"}
        drawn = await client.get(one["picture"])
        again = await client.get(one["picture"], headers={"if-none-match": drawn.headers["etag"]})
        assert again.status_code == 304
        for answer in (drawn, again):  # asked for each time: it may be deleted, and the next user may have no key
            assert answer.headers.get_list("cache-control") == ["private, no-cache"]
            assert answer.headers["x-content-type-options"] == "nosniff"

    with_client(bundle, work, library=library)


@pytest.mark.parametrize("host", ["[localhost", "localhost]", "[", "a b", "x" * 9000, "%00", "user@host"])
def test_a_host_that_is_none_makes_no_fault_of_ours(bundle: Bundle, host: str):
    async def work(client: httpx2.AsyncClient) -> None:
        for path, status in (("/made/up", 404), ("/classify/", 404), ("/classify", 405), ("/v1/models", 200)):
            answer = await client.get(path, headers={"host": host})
            assert answer.status_code == status
            assert "location" not in answer.headers  # it would lead to what the client called us

    with_client(bundle, work)


def test_names_of_any_bytes_are_told(bundle: Bundle, tmp_path: Path):
    names = [b"caf\xe9.png", b"line\nbreak.png", "\u202egnp.exe.png".encode(), b"'\"><img src=x onerror=alert(1)>.png"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(picture_file())
    answer = asked(bundle, "/search", {"text": "a boat"}, library=PlainLibrary(tmp_path, bundle))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"  # nothing that a browser would run
    assert {one["name"] for one in answer.json()["results"]} == {
        name.decode("utf-8", "backslashreplace") for name in names
    }
