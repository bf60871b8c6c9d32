import asyncio
import base64
import dataclasses
import io
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.classify import ZeroShotClassifier
from diptych.data.tokenizer import Unread
from diptych.errors import BusyError, ConfigError, DataError, ImageError, TextError
from diptych.serve import service as service_module
from diptych.serve.gallery import Gallery
from diptych.serve.limits import Limits
from diptych.serve.refusals import RefusedError
from diptych.serve.service import Picture, Service, TextFeatures
from diptych.weights.bundle import Bundle
from serving import COLOURS, PlainLibrary, data_url, latin_bundle, picture_file, tiny_bundle

T = TypeVar("T")
# Rows of one matrix product are summed in another order than those of another size.
BATCH_TOLERANCE = 1e-6  # of each number of a unit vector; docs/how-to/serve.md states it


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


def with_service(bundle: Bundle, work: Callable[[Service], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        service = Service(bundle, name="tiny", **options)
        try:
            return await work(service)
        finally:
            service.close()

    return asyncio.run(run())


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_what_is_joined_equals_what_is_computed_one_by_one(bundle: Bundle):
    files = [noise(seed) for seed in range(20)]
    texts = [" ".join(words) for words in itertools.permutations(("red", "kite", "boat"), 2)] + ["a blue boat " * 3]

    async def work(service: Service) -> tuple[list[np.ndarray], list[Any]]:
        pictures = [service.image_features([Picture(data_url(file))]) for file in files]
        sentences = [service.text_features([text]) for text in texts]
        return await asyncio.gather(*pictures), await asyncio.gather(*sentences)

    limits = Limits(batch=8, delay=0.5)
    of_pictures, of_texts = with_service(bundle, work, limits=limits)
    for file, features in zip(files, of_pictures, strict=True):
        np.testing.assert_allclose(features, bundle.encode_images([file]), atol=BATCH_TOLERANCE)
    for text, one in zip(texts, of_texts, strict=True):
        np.testing.assert_allclose(one.features, bundle.encode_texts([text]), atol=BATCH_TOLERANCE)
        end = bundle.tokenizer.end_token_id
        assert one.tokens == bundle.tokenizer.encode([text])[0].tolist().index(end) + 1


def test_requests_are_joined(bundle: Bundle):
    async def work(service: Service) -> bytes:
        await asyncio.gather(*(service.image_features([Picture(data_url(noise(seed)))]) for seed in range(8)))
        return service.monitor.text()

    text = with_service(bundle, work, limits=Limits(batch=8, delay=5)).decode()
    assert 'diptych_batch_size_count{kind="picture"} 1.0' in text
    assert 'diptych_batch_size_sum{kind="picture"} 8.0' in text


def test_classify_is_the_zero_shot_classifier(bundle: Bundle):
    labels, templates = ["red kite", "blue boat", "boat"], ["a {}", "the {} there"]
    file = noise(1)

    async def work(service: Service) -> dict[str, float]:
        return (await service.classify(Picture(data_url(file)), labels, templates)).probabilities

    shares = with_service(bundle, work)
    plain = dict(zip(labels, ZeroShotClassifier(bundle, labels, templates)([file])[0].tolist(), strict=True))
    assert shares == pytest.approx(plain, abs=1e-5)
    assert list(shares) == sorted(plain, key=lambda label: -plain[label])


@pytest.fixture
def library(tmp_path: Path, bundle: Bundle) -> PlainLibrary:
    for name, colour in COLOURS.items():
        (tmp_path / f"{name}.png").write_bytes(picture_file(colour))  # pyright: ignore[reportArgumentType]
    return PlainLibrary(tmp_path, bundle)


def test_a_search_adds_words_and_picture_and_takes_words_away(bundle: Bundle, library: PlainLibrary):
    file = noise(3)

    async def work(service: Service) -> list[list[dict[str, Any]]]:
        picture = Picture(base64.b64encode(file).decode())
        found = [
            await service.search(text="a red kite"),
            await service.search(text="a red kite", picture=picture, without="boat"),
            await service.search(picture=picture, count=1),
        ]
        return [answer.pictures for answer in found]

    words, all_, one = with_service(bundle, work, gallery=Gallery(library))
    red, boat = bundle.encode_texts(["a red kite", "boat"])
    seen = bundle.encode_images([file])[0]
    for found, query in ((words, red), (all_, red + seen - boat), (one, seen)):
        expected = library.nearest(query / np.linalg.norm(query), count=len(found), filters=None)
        assert [row["name"] for row in found] == [row.path.name for row in expected]
        assert [row["score"] for row in found] == pytest.approx([row.score for row in expected], abs=1e-5)
    assert len(one) == 1


def test_a_search_reads_words_as_words(
    bundle: Bundle, library: PlainLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The query language of the command line opens files that a query names; a client's words must not."""
    monkeypatch.chdir(tmp_path)
    text = "image:red.png"
    assert Path("red.png").is_file()

    async def work(service: Service) -> list[dict[str, Any]]:
        return (await service.search(text=text)).pictures

    found = with_service(bundle, work, gallery=Gallery(library))
    expected = library.nearest(bundle.encode_texts([text])[0], count=9, filters=None)
    assert [row["score"] for row in found] == pytest.approx([row.score for row in expected], abs=1e-5)


def test_searches_that_cannot_be(bundle: Bundle, library: PlainLibrary):
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, ConfigError, "needs something to look for"),
        ({"without": "a boat"}, ConfigError, "needs something to look for"),
        ({"text": " \n"}, ConfigError, "text must hold words, and is empty"),
        ({"text": "a boat", "without": " "}, ConfigError, "without must hold words, and is empty"),
        ({"text": "a boat", "without": "a boat"}, ConfigError, "cancel out"),
        ({"text": "a boat", "count": 201}, ConfigError, "count must be at most 200"),
        ({"like": "x", "text": "a boat"}, ConfigError, "like goes by itself"),
        ({"like": "x"}, RefusedError, "must be the id"),
    ]

    async def work(service: Service) -> None:
        for options, kind, message in cases:
            with pytest.raises(kind, match=message):
                await service.search(**options)

    with_service(bundle, work, gallery=Gallery(library))

    async def without(service: Service) -> None:
        with pytest.raises(RefusedError, match="Start it with --library"):
            await service.search(text="a boat")

    with_service(bundle, without)


def test_what_cannot_be_used_is_named_and_gives_its_place_back(bundle: Bundle):
    good = Picture(data_url(noise(0)), "input[0]")
    limits = Limits(pictures=2, texts=3, characters=50, pixels=10_000)
    cases: list[tuple[Any, type[Exception], str]] = [
        (lambda s: s.image_features([good, Picture("?", "input[1]")]), ImageError, r"^input\[1\]: a picture must be"),
        (
            lambda s: s.image_features([Picture(data_url(picture_file(size=(101, 100))), "input[3]")]),
            ImageError,
            r"^input\[3\] must have at most 10,000 pixels",
        ),
        (lambda s: s.image_features([Picture("https://example.org/a.png")]), ImageError, "URLs are not fetched"),
        (lambda s: s.image_features([good] * 3), ConfigError, "at most 2 pictures. Got 3"),
        (lambda s: s.text_features(["a"] * 4), ConfigError, "at most 3 texts. Got 4"),
        (lambda s: s.text_features(["boat " * 9 + "kite" * 2]), TextError, "at most 50 characters. Got 53"),
        (lambda s: s.text_features(["a b c d e f g h i j k l m n o p q"]), TextError, "must fit 16 tokens"),
        (lambda s: s.classify(good, ["a", "b"], ["{}", "a {}"]), ConfigError, "labels times templates. Got 4"),
        (lambda s: s.classify(good, ["a" * 30], ["{}" + "b" * 30]), TextError, "at most 50 characters. Got 62"),
        (lambda s: s.classify(good, ["a", "a"]), DataError, "labels must differ"),
        (lambda s: s.classify(Picture("?"), ["a", "b"]), ImageError, "^image: a picture must be base64"),
        (lambda s: s.classify(good, ["a", "b"], ["no gap"]), DataError, "must hold one {}"),
    ]

    async def work(service: Service) -> None:
        for call, kind, message in cases:
            with pytest.raises(kind, match=message):
                await call(service)
        assert service._images.places_taken == service._texts.places_taken == 0
        assert (await service.text_features(["a b c d e f g h i j k l m n o p q"], truncate=True)).tokens == 16
        assert len(await service.image_features([good])) == 1  # the next is served

    with_service(bundle, work, limits=limits)


def test_a_url_is_fetched_where_that_is_allowed(bundle: Bundle):
    file = noise(5)

    async def fetch(url: str) -> bytes:
        assert url == "https://example.org/a.png"
        return file

    async def work(service: Service) -> np.ndarray:
        return await service.image_features([Picture("https://example.org/a.png")])

    features = with_service(bundle, work, fetch=fetch)
    np.testing.assert_allclose(features, bundle.encode_images([file]), atol=BATCH_TOLERANCE)


def test_beyond_the_places_a_request_is_refused(bundle: Bundle):
    async def work(service: Service) -> list[Any]:
        asked = (service.image_features([Picture(data_url(noise(seed)))] * 2) for seed in range(3))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = with_service(bundle, work, limits=Limits(pictures=2, pictures_waiting=4))
    assert (len(first), len(second)) == (2, 2)
    assert isinstance(third, BusyError)


def test_health_tells_a_model_that_changed_or_failed_or_hangs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("diptych.serve.service._HEALTH_SECONDS", 0)
    changed = tiny_bundle()
    may_go = threading.Event()

    def fail(*_: Any, **__: Any) -> None:
        raise ArithmeticError

    async def work(service: Service) -> list[str]:
        found = [await service.health()]
        projection = changed.model.image.get_parameter("projection")
        with torch.no_grad():
            projection.neg_()
            found.append(await service.health())
            projection.fill_(float("nan"))
            found.append(await service.health())
        monkeypatch.setattr(Bundle, "encode_images", fail)
        found.append(await service.health())
        monkeypatch.setattr(Bundle, "encode_images", lambda *_, **__: may_go.wait(10))
        found.append(await service.health())
        may_go.set()
        return found

    fine, moved, broken, failed, hangs = with_service(changed, work, limits=Limits(seconds=0.2))
    assert fine == ""
    assert moved == "the golden picture is 2 from where it was at the start"
    assert broken == "the model failed (WeightsError)"
    assert failed == "the model failed (ArithmeticError)"
    assert hangs == "no answer within 0.2 s"


def test_many_who_ask_for_health_run_the_model_once(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    calls = []

    async def work(service: Service) -> list[str]:
        encode = type(bundle).encode_images
        monkeypatch.setattr(type(bundle), "encode_images", lambda *args, **options: calls.append(1) or encode(*args))
        return await asyncio.gather(*(service.health() for _ in range(20)))

    assert with_service(bundle, work) == [""] * 20
    assert len(calls) == 1


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Closed until the test ends, so that no thread stays behind."""
    gate = threading.Event()
    yield gate
    gate.set()


QUICK = Limits(decoders=1, work_seconds=0.1)


def test_texts_do_not_wait_for_pictures_that_never_end(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
):
    monkeypatch.setattr(service_module, "decode_picture", lambda *_, **__: gate.wait(30))

    async def work(service: Service) -> None:
        pictures = [asyncio.create_task(service.image_features([Picture("x")] * 2)) for _ in range(3)]
        for _ in range(10):
            assert len((await service.text_features(["a red kite"])).features) == 1
        for one in await asyncio.gather(*pictures, return_exceptions=True):
            assert isinstance(one, ImageError)
            assert "image must be decoded within 0.1 s, and takes longer. Send it smaller." in str(one)
        assert service._images.places_taken == 0
        assert "diptych_bad_pictures_total" in service.monitor.text().decode()

    with_service(bundle, work, limits=QUICK)


def test_texts_do_not_wait_for_the_models_work_on_pictures(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
):
    async def work(service: Service) -> None:
        begun = threading.Event()
        monkeypatch.setattr(Bundle, "encode_pixels", lambda *_: begun.set() or gate.wait(30))
        picture = asyncio.create_task(service.image_features([Picture(data_url(noise(0)))]))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        assert len((await service.text_features(["a red kite"])).features) == 1
        picture.cancel()
        gate.set()

    with_service(bundle, work)


def test_pictures_of_one_request_do_not_all_go_before_anothers_only(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    decode = service_module.decode_picture
    monkeypatch.setattr(
        service_module, "decode_picture", lambda *args, **options: order.append(args[1]) or decode(*args, **options)
    )

    async def work(service: Service) -> None:
        file = data_url(noise(0))
        many = [Picture(file, "many") for _ in range(8)]
        await asyncio.gather(service.image_features(many), service.image_features([Picture(file, "only")]))

    with_service(bundle, work, limits=Limits(decoders=1))
    assert order.index("only") <= 1


def test_a_file_that_hangs_costs_its_own_request_alone(
    bundle: Bundle, library: PlainLibrary, monkeypatch: pytest.MonkeyPatch, gate: threading.Event
):
    async def work(service: Service) -> None:
        [red, *_] = (await service.search(picture=Picture(data_url(picture_file("red"))), count=3)).pictures
        with monkeypatch.context() as patch:
            patch.setattr(library, "thumbnail", lambda *_, **__: gate.wait(30))
            patch.setattr(library, "nearest", lambda *_, **__: gate.wait(30))
            for _ in range(3):
                with pytest.raises(RefusedError, match="the picture cannot be read in time") as refused:
                    await service.draw(red["id"], 16)
                assert (refused.value.status, refused.value.retry_after) == (503, 10)
                with pytest.raises(RefusedError, match="the index of the library cannot be read in time"):
                    await service.search(text="a boat")
            assert await service.health() == ""
        assert await service.draw(red["id"], 16)
        assert len((await service.search(text="a boat")).pictures) == 3

    with_service(bundle, work, gallery=Gallery(library), limits=QUICK)


def test_long_texts_are_tokenized_a_few_at_a_time(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []
    encode = type(bundle.tokenizer).encode
    texts = ["a boat " * 1400] * 20 + ["a kite"] * 10

    def counted(tokenizer: Any, parts: Any, **options: Any) -> Any:
        sizes.append(sum(map(len, parts)))
        return encode(tokenizer, parts, **options)

    async def work(service: Service) -> TextFeatures:
        monkeypatch.setattr(type(bundle.tokenizer), "encode", counted)
        return await service.text_features(texts, truncate=True)

    of_texts = with_service(bundle, work)
    monkeypatch.undo()
    assert max(sizes) <= 50_000
    assert sum(sizes) == 2 * sum(map(len, texts))  # counted, then encoded
    np.testing.assert_allclose(of_texts.features, bundle.encode_texts(texts, truncate=True), atol=BATCH_TOLERANCE)
    assert of_texts.tokens == 20 * 16 + 10 * 4


def test_closing_says_whether_all_work_ended(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, gate: threading.Event):
    monkeypatch.setattr(service_module, "_LAST", 0.1)
    monkeypatch.setattr(service_module, "decode_picture", lambda *_, **__: gate.wait(30))

    async def work() -> tuple[bool, bool]:
        fine, stuck = Service(bundle, name="tiny"), Service(bundle, name="tiny", limits=QUICK)
        with pytest.raises(ImageError):
            await stuck.image_features([Picture("x")])
        return fine.close(), stuck.close()

    assert asyncio.run(work()) == (True, False)


def test_words_that_the_model_cannot_read_are_refused_before_a_picture_is_decoded(tmp_path: Path):
    bundle = latin_bundle()
    no_picture = Picture("?")

    async def work(service: Service) -> None:
        for call in (
            service.classify(no_picture, ["犬", "車"]),
            service.classify(no_picture, ["犬", "車", "a cat"], ["a photo of {}"]),  # of which two are one to it
            service.classify(no_picture, ["犬"]),
            service.search(text="犬", picture=None),
            service.search(text="a cat", without="犬"),
            service.text_features(["a cat", "犬"], must_be_read=True),
        ):
            with pytest.raises(TextError, match=r"^'犬' is no text to this model"):
                await call
        assert service._texts.places_taken == 0

    with_service(bundle, work, gallery=Gallery(PlainLibrary(tmp_path, bundle)))


def test_words_that_the_model_reads_in_part_are_told(tmp_path: Path):
    bundle = latin_bundle()
    (tmp_path / "red.png").write_bytes(picture_file())
    picture = Picture(data_url(noise(0)))

    async def work(service: Service) -> None:
        shares = await service.classify(picture, ["a cat", "犬", "cat 車"], ["the {}"])
        assert sum(shares.probabilities.values()) == pytest.approx(1)
        assert shares.unread == [Unread(text="犬", words=1, unknown=1), Unread(text="cat 車", words=2, unknown=1)]
        assert (await service.classify(picture, ["a cat", "a photo"])).unread == []
        found = await service.search(text="a 犬", without="cat 車")
        assert [text.text for text in found.unread] == ["a 犬", "cat 車"]
        [red] = found.pictures
        assert (await service.search(like=red["id"])).unread == ()
        assert (await service.text_features(["a cat", "a 犬"])).unread == [Unread(text="a 犬", words=2, unknown=1)]

    with_service(bundle, work, gallery=Gallery(PlainLibrary(tmp_path, bundle)))


def test_nothing_is_tokenized_of_a_text_that_is_too_long(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """On its way a long text takes hundreds of bytes a character."""
    sizes: list[int] = []

    def unread(_: Any, texts: Sequence[str]) -> list[Unread]:
        sizes.append(sum(map(len, texts)))
        return []

    async def work(service: Service) -> None:
        for call in (
            service.search(text="boat " * 1_000_000),
            service.search(text="boat", without="boat " * 1_000_000),
            service.classify(Picture("?"), ["boat " * 1_000_000, "a"]),
            service.classify(Picture("?"), [f"{i}" * 9_000 for i in range(60)]),
            service.text_features(["boat " * 1_000_000]),
        ):
            with pytest.raises(TextError, match=r"at most [15]0+,000 characters"):
                await call
        assert sizes == []
        await service.text_features(["boat " * 1000] * 60, truncate=True)
        assert (sum(sizes), max(sizes)) == (300_000, 50_000)

    monkeypatch.setattr(type(bundle.tokenizer), "unread", unread)
    with_service(bundle, work, gallery=Gallery(PlainLibrary(tmp_path, bundle)))


def test_the_limit_of_the_server_stands_whatever_that_of_the_model_is(bundle: Bundle):
    narrow = dataclasses.replace(bundle, preprocess=dataclasses.replace(bundle.preprocess, max_pixels=10_000))
    picture = Picture(data_url(picture_file(size=(110, 100))))

    async def work(service: Service) -> int:
        return len(await service.image_features([picture]))

    assert with_service(narrow, work, limits=Limits(pixels=11_000)) == 1
    with pytest.raises(ImageError, match="at most 10,900 pixels"):
        with_service(narrow, work, limits=Limits(pixels=10_900))


def test_one_request_may_have_as_many_urls_as_pictures_and_few_files_are_held_at_once(bundle: Bundle):
    held = most = 0
    file = picture_file()

    async def fetch(_: str) -> bytes:
        nonlocal held, most
        held += 1
        most = max(most, held)
        await asyncio.sleep(0)
        return file

    async def work(service: Service) -> int:
        nonlocal held
        decode = service._decode

        def decoded(*arguments: Any) -> np.ndarray:
            nonlocal held
            held -= 1
            return decode(*arguments)

        service._decode = decoded
        many = [Picture("https://example.org/a.png")] * 32
        return sum(map(len, await asyncio.gather(*(service.image_features(many) for _ in range(3)))))

    assert with_service(bundle, work, fetch=fetch, limits=Limits(decoders=16)) == 96
    assert most == 8


def test_a_library_that_cannot_be_counted_yet_is_one_all_the_same(bundle: Bundle, tmp_path: Path):
    async def work(service: Service) -> int | None:
        return service.pictures_found

    assert with_service(bundle, work) is None
    assert with_service(bundle, work, gallery=Gallery(PlainLibrary(tmp_path, bundle))) == 0
