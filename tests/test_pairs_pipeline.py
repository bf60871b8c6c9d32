import collections
import dataclasses
import hashlib
import json
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from conftest import drawing, png
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, DataError, MissingExtraError, ShardError
from diptych.pairs import pipeline
from diptych.pairs.augment import Augment
from diptych.pairs.pipeline import Batch, DataConfig, batches, pair_sources, source_shares, vocabulary_texts
from diptych.pairs.shards import ShardWriter, captions_of
from diptych.pairs.sources import Source

AS_IT_IS = Augment(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))


def numbered(folder: Path, count: int, captions: str = "a thing", first: int = 0) -> Source:
    """Pictures of one colour, whose red is their number."""
    with ShardWriter(folder, samples_per_shard=5) as writer:
        for n in range(first, first + count):
            writer.add(f"{n:03d}", {"png": png(Image.new("RGB", (4, 4), (n, 0, 0))), "txt": captions.encode()})
    return Source(path=str(folder))


def stream(
    config: DataConfig,
    tokenizer: Tokenizer,
    start: int,
    stop: int,
    *,
    side=4,
    batch_size=4,
    seed=0,
    sources=None,
    **options,
) -> Generator[Batch]:
    """`batches` with small defaults."""
    return batches(
        sources or pair_sources(config),
        config,
        preprocess=Preprocess(image_size=side),
        tokenizer=tokenizer,
        batch_size=batch_size,
        seed=seed,
        start=start,
        stop=stop,
        **options,
    )


@pytest.fixture
def read(tokenizer):
    def read(config: DataConfig, start: int, stop: int, **options: Any) -> list[Batch]:
        return list(stream(config, tokenizer, start, stop, **options))

    return read


def numbers(drawn: list[Batch]) -> list[int]:
    return [int(n) for batch in drawn if len(batch.images) for n in batch.images[:, 0, 0, 0]]


def grain_threads_that_stay() -> list[str]:
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("grain")]
    for thread in threads:
        thread.join(10)
    return [thread.name for thread in threads if thread.is_alive()]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        for name in ("images", "tokens", "text_ids", "noise"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert a.keys == b.keys


def test_each_epoch_visits_every_sample_once_in_an_order_of_its_own(tmp_path, read):
    config = DataConfig(sources=(numbered(tmp_path / "set", 10),), augment=AS_IT_IS)
    drawn = numbers(read(config, 0, 15))  # 60 draws of 10 samples; an epoch ends in the middle of a batch
    epochs = [drawn[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert epochs[0] != list(range(10))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_stream_can_begin_anywhere_and_threads_have_no_part_in_it(pair_shards, read, threads):
    varied = Augment(rotate=10.0, color=0.3)
    config = DataConfig(sources=(Source(path=str(pair_shards)),), templates=("{}", "a {}"), augment=varied)
    undisturbed = read(config, 0, 14, side=8)  # epochs end at batch 10
    assert_same(read(config, 9, 14, side=8, threads=threads), undisturbed[9:])
    assert_same(read(config, 0, 14, side=8, threads=threads), undisturbed)


def test_batches_are_as_asked_for(pair_shards, read):
    (batch,) = read(DataConfig(sources=(Source(path=str(pair_shards)),)), 3, 4, side=8, batch_size=6)
    assert batch.images.shape == (6, 8, 8, 3)
    assert batch.images.dtype == torch.uint8
    assert batch.tokens.shape[0] == batch.text_ids.shape[0] == 6
    assert (dict(batch.bad), batch.truncated) == ({}, 0)
    assert read(DataConfig(sources=(Source(path=str(pair_shards)),)), 3, 3) == []


def test_another_seed_is_another_order(tmp_path, read):
    config = DataConfig(sources=(numbered(tmp_path / "set", 20),), augment=AS_IT_IS)
    orders = {tuple(numbers(read(config, 0, 5, seed=seed))) for seed in range(4)}
    assert len(orders) == 4


def test_two_visits_to_a_sample_vary_it_in_two_ways(tmp_path, read):
    with ShardWriter(tmp_path / "one") as writer:
        writer.add("a", {"png": png(drawing("red", "cross", 14)), "txt": b"cross"})
    config = DataConfig(sources=(Source(path=str(tmp_path / "one")),), augment=Augment(rotate=30.0))
    visits = np.stack([batch.images[0] for batch in read(config, 0, 6, side=32, batch_size=1)])
    assert len(np.unique(visits, axis=0)) == 6


def test_sources_are_mixed_by_weight_and_each_is_shuffled(tmp_path, read):
    large, small = numbered(tmp_path / "large", 8), numbered(tmp_path / "small", 8, first=100)
    sources = (Source(path=large.path, weight=3.0), Source(path=small.path, weight=1.0))
    drawn = numbers(read(DataConfig(sources=sources, augment=AS_IT_IS), 0, 16))
    counts = collections.Counter(drawn)
    assert {n: counts[n] for n in range(8)} == dict.fromkeys(range(8), 6)  # 48 of 64 draws
    assert {n: counts[n] for n in range(100, 108)} == dict.fromkeys(range(100, 108), 2)
    assert all(sum(n < 100 for n in drawn[i : i + 8]) == 6 for i in range(0, 64, 8))  # mixed all along


def test_bad_samples_are_left_out_and_counted_by_cause(tmp_path, read):
    good = png(Image.new("RGB", (4, 4), (1, 0, 0)))
    with ShardWriter(tmp_path / "set") as writer:
        writer.add("good", {"png": good, "txt": b"fine"})
        writer.add("cut", {"png": good[: len(good) // 2], "txt": b"fine"})
        writer.add("page", {"jpg": b"<html>not found</html>", "txt": b"fine"})
        writer.add("mute", {"png": good})
        writer.add("blank", {"png": good, "txt": b" \n\n"})
        writer.add("latin", {"png": good, "txt": "caf\xe9".encode("latin-1")})
        writer.add("blind", {"txt": b"fine", "json": b"{}"})
    config = DataConfig(sources=(Source(path=str(tmp_path / "set")),))
    (batch,) = read(config, 0, 1, batch_size=7)
    assert dict(batch.bad) == {
        "truncated": 1,
        "not an image": 1,
        "no caption": 2,
        "caption not UTF-8": 1,
        "no picture": 1,
    }
    assert len(batch.images) == len(batch.tokens) == len(batch.text_ids) == 1


def test_a_batch_says_how_long_it_was_waited_for_and_worked_on(tmp_path, read, monkeypatch):
    config = DataConfig(sources=(numbered(tmp_path / "set", 4),))
    waiting, working = [0.0], [0.0]
    clocks = SimpleNamespace(perf_counter=lambda: waiting[0], thread_time=lambda: working[0])
    monkeypatch.setattr(pipeline, "time", clocks)
    open_image = pipeline.open_image

    def slow(picture: bytes, **options: int) -> Any:
        working[0] += 2.0
        return open_image(picture, **options)

    monkeypatch.setattr(pipeline, "open_image", slow)

    class Slow:
        def __init__(self, pairs: Any) -> None:
            self._pairs = pairs

        def __len__(self) -> int:
            return len(self._pairs)

        def __getitem__(self, index: int) -> Any:
            waiting[0] += 3.0
            return self._pairs[index]

    (batch,) = read(config, 0, 1, sources=[Slow(pair_sources(config)[0])])
    assert batch.seconds == {"read": 12, "decode": 8}


def test_a_batch_of_bad_samples_alone_is_empty(tmp_path, read):
    with ShardWriter(tmp_path / "set") as writer:
        writer.add("mute", {"png": b""})
    (batch,) = read(DataConfig(sources=(Source(path=str(tmp_path / "set")),)), 0, 1)
    assert (len(batch.images), len(batch.tokens), len(batch.text_ids)) == (0, 0, 0)
    assert batch.images.dtype == torch.uint8
    assert dict(batch.bad) == {"no caption": 4}


def test_the_first_caption_has_its_chance_and_its_share_of_the_rest(tmp_path, read, tokenizer):
    source = numbered(tmp_path / "set", 1, captions="red\ngreen\nblue\n")
    drawn = read(DataConfig(sources=(source,), first_caption=0.4, augment=AS_IT_IS), 0, 1, batch_size=1000)
    counts = collections.Counter(tokenizer.decode(tokens) for tokens in drawn[0].tokens)
    for color, share in {"red": 0.4 + 0.6 / 3, "green": 0.2, "blue": 0.2}.items():
        assert counts[color] / 1000 == pytest.approx(share, abs=0.06)  # 4 standard deviations


def test_templates_take_turns_and_braces_in_captions_stay(tmp_path, read, tokenizer):
    source = numbered(tmp_path / "set", 1, captions="{red} {}")
    drawn = read(
        DataConfig(sources=(source,), templates=("{}", "a drawing of {c}"), augment=AS_IT_IS), 0, 1, batch_size=1000
    )
    counts = collections.Counter(tokenizer.decode(tokens) for tokens in drawn[0].tokens)
    assert set(counts) == {"{ red } {}", "a drawing of { red } {}"}
    assert counts["{ red } {}"] == pytest.approx(500, abs=65)  # 4 standard deviations


def test_texts_are_the_same_when_their_tokens_are_whatever_the_template(tmp_path, read):
    with ShardWriter(tmp_path / "set") as writer:
        for key, caption in {"a": "Red Square", "b": "red  square", "c": "red circle"}.items():
            writer.add(key, {"png": png(Image.new("RGB", (4, 4), (ord(key), 0, 0))), "txt": caption.encode()})
    config = DataConfig(sources=(Source(path=str(tmp_path / "set")),), templates=("{}", "a {}"), augment=AS_IT_IS)
    (batch,) = read(config, 0, 1, batch_size=30)
    caption_of = {ord("a"): "square", ord("b"): "square", ord("c"): "circle"}
    captions = [caption_of[n] for n in numbers([batch])]
    same = batch.text_ids[:, None] == batch.text_ids
    assert same.tolist() == [[one == other for other in captions] for one in captions]


def test_tokens_are_cut_to_the_longest_text_and_truncation_is_counted(tmp_path, read, tokenizer):
    config = DataConfig(sources=(numbered(tmp_path / "short", 4, captions="red square"),))
    (batch,) = read(config, 0, 1)
    whole = tokenizer.encode(["red square"])[0]
    end = whole.tolist().index(tokenizer.end_token_id)
    assert batch.tokens.tolist() == [whole[: end + 1].tolist()] * 4
    config = DataConfig(sources=(numbered(tmp_path / "long", 4, captions="red " * 30),))
    (batch,) = read(config, 0, 1)
    assert batch.tokens.shape == (4, 16)
    assert batch.tokens[:, -1].tolist() == [tokenizer.end_token_id] * 4
    assert batch.truncated == 4


@pytest.mark.parametrize("threads", [1, 3])
def test_samples_of_a_shard_that_vanishes_during_a_run_are_counted_with_its_name(tmp_path, read, threads):
    config = DataConfig(sources=(numbered(tmp_path / "set", 10),), augment=AS_IT_IS)
    sources = pair_sources(config)
    (tmp_path / "set" / "shard-00001.tar").unlink()
    drawn = read(config, 0, 5, threads=threads, sources=sources)
    assert sum((collections.Counter(batch.bad) for batch in drawn), collections.Counter()) == {
        "shard-00001.tar is missing": 10  # 5 samples, 2 epochs
    }
    assert sorted(numbers(drawn)) == sorted(2 * list(range(5)))


def test_a_shard_that_ends_early_is_counted_or_stops_the_run_as_the_limit_says(tmp_path, read):
    config = DataConfig(sources=(numbered(tmp_path / "set", 10),), augment=AS_IT_IS, max_bad=0.5)
    shard = tmp_path / "set" / "shard-00001.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    drawn = read(config, 0, 5)
    assert sum((collections.Counter(batch.bad) for batch in drawn), collections.Counter()) == {
        "shard-00001.tar ended early": 10
    }
    assert sorted(numbers(drawn)) == sorted(2 * list(range(5)))
    with pytest.raises(ShardError, match=r"shard-00001\.tar is cut short or was changed: 3,000 bytes"):
        pair_sources(dataclasses.replace(config, max_bad=0.4))


def test_a_failure_of_ours_ends_the_stream_and_its_threads(tmp_path, tokenizer):
    class Broken(Augment):
        def __call__(self, *arguments: Any) -> np.ndarray:
            raise ZeroDivisionError

    config = DataConfig(sources=(numbered(tmp_path / "set", 30),), augment=Broken())
    with pytest.raises(ZeroDivisionError):
        list(stream(config, tokenizer, 0, 100, batch_size=1, threads=3))
    assert grain_threads_that_stay() == []


def test_a_closed_stream_gives_nothing_more_and_prepares_nothing_more(pair_shards, tokenizer):
    calls, may_go_on = [], threading.Event()

    class Slow(Augment):
        def __call__(self, *arguments: Any) -> np.ndarray:
            calls.append(None)
            assert len(calls) == 1 or may_go_on.wait(30)
            return super().__call__(*arguments)

    config = DataConfig(sources=(Source(path=str(pair_shards)),), augment=Slow())
    endless = stream(config, tokenizer, 0, 10**9, batch_size=1)
    next(endless)
    endless.close()
    may_go_on.set()
    assert grain_threads_that_stay() == []
    assert len(calls) <= 2  # the second was in hand
    assert list(endless) == []


def test_training_without_grain_names_the_extra(pair_shards, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    config = DataConfig(sources=(Source(path=str(pair_shards)),))
    with pytest.raises(MissingExtraError, match=r"training needs an extra: pip install 'diptych\[train\]'"):
        stream(config, tokenizer, 0, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ()}, "data.sources must name at least one source"),
        (
            {"sources": (Source(path="a", teacher_texts="t"), Source(path="b"))},
            "teacher_texts for each source, or for none",
        ),
        ({"first_caption": 1.1}, "must lie between 0 and 1. Got 1.1 and 0.01"),
        ({"max_bad": float("nan")}, "must lie between 0 and 1. Got 0.0 and nan"),
    ],
)
def test_options_out_of_range_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**{"sources": (Source(path="a"),), **options})


def test_an_embedded_set_is_found_by_name_and_an_unknown_one_is_named():
    config = DataConfig(sources=(Source(path="embedded:emoij"),))
    with pytest.raises(ConfigError, match=r"embedded:emoij is not a set .* Did you mean embedded:emoji\?"):
        pair_sources(config)
    (emoji,) = pair_sources(DataConfig(sources=(Source(path="embedded:emoji"),)))
    assert len(emoji) > 1000
    assert captions_of(emoji[0])


def test_parts_of_a_batch_one_after_the_other_are_the_batch(pair_shards, read):
    config = DataConfig(sources=(Source(path=str(pair_shards)),), augment=Augment(rotate=10.0))
    undisturbed = read(config, 3, 7, side=8, batch_size=12)
    for parts in (2, 3):
        pieces = [read(config, 3, 7, side=8, batch_size=12, part=part, parts=parts) for part in range(parts)]
        for whole, together in zip(undisturbed, zip(*pieces, strict=True), strict=True):
            for name in ("images", "text_ids", "noise"):
                assert torch.equal(torch.cat([getattr(piece, name) for piece in together]), getattr(whole, name)), name
            assert [key for piece in together for key in piece.keys] == whole.keys
            longest = max(piece.tokens.shape[1] for piece in together)
            assert longest == whole.tokens.shape[1]


def test_each_visit_has_a_number_of_its_own(pair_shards, read):
    config = DataConfig(sources=(Source(path=str(pair_shards)),))
    noise = torch.cat([batch.noise for batch in read(config, 0, 25)])  # two and a half epochs
    assert len(set(noise.tolist())) == 100
    assert noise.min() >= 0


def test_the_demo_draws_what_it_drew_when_its_result_was_measured(tokenizer):
    emoji, icons = Source(path="embedded:emoji", weight=9.0), Source(path="embedded:icons", weight=1.0)
    config = DataConfig(sources=(emoji, icons), templates=("{}", "a {}"), first_caption=0.9, augment=AS_IT_IS)
    digest = hashlib.sha256()
    for batch in stream(config, tokenizer, 400, 402, side=8, batch_size=64):  # in the second epoch of the emoji
        digest.update("\n".join(batch.keys).encode())
        digest.update(batch.noise.numpy().tobytes() + batch.text_ids.numpy().tobytes())
    assert digest.hexdigest()[:16] == "d70a2b10b136efb0"


def texts(drawn: list[Batch], tokenizer) -> list[str]:
    return [tokenizer.decode(row) for batch in drawn for row in batch.tokens]


@pytest.mark.parametrize(
    ("captions", "by_epoch"),
    [
        ("first", [{"red"}, {"red"}, {"red"}]),
        ("turns", [{"red"}, {"green"}, {"red"}]),
        ("join", [{"red . green"}] * 3),
        ("draw", [{"red", "green"}] * 3),
    ],
)
def test_each_source_says_which_caption_is_taken(tmp_path, read, tokenizer, captions, by_epoch):
    source = numbered(tmp_path / "set", 12, captions="red\ngreen\n")
    config = DataConfig(sources=(dataclasses.replace(source, captions=captions),), augment=AS_IT_IS)
    epochs = [set(texts(read(config, epoch, epoch + 1, batch_size=12), tokenizer)) for epoch in range(3)]
    assert epochs == by_epoch


def test_a_source_may_have_templates_of_its_own(tmp_path, read, tokenizer):
    plain = numbered(tmp_path / "plain", 2, captions="red")
    own = dataclasses.replace(numbered(tmp_path / "own", 2, captions="green"), templates=("a {}",))
    config = DataConfig(sources=(plain, own), augment=AS_IT_IS)
    assert set(texts(read(config, 0, 2), tokenizer)) == {"red", "a green"}
    assert sorted(vocabulary_texts(pair_sources(config), config)) == ["a green", "a green", "red", "red"]


def test_a_vocabulary_is_learned_from_captions_alone(tmp_path, monkeypatch):
    config = DataConfig(sources=(numbered(tmp_path / "set", 3),), templates=("{}", "one {}"))
    (pairs,) = pair_sources(config)
    monkeypatch.setattr(type(pairs), "__getitem__", lambda *_: pytest.fail("a picture was read"))
    assert list(vocabulary_texts([pairs], config)) == 3 * ["a thing", "one a thing"]


def test_with_replacement_samples_come_again_before_all_have_come(tmp_path, read):
    source = dataclasses.replace(numbered(tmp_path / "set", 50), replace=True)
    drawn = numbers(read(DataConfig(sources=(source,), augment=AS_IT_IS), 0, 25))  # 100 draws of 50
    assert len(set(drawn[:50])) < 45  # 32 expected, an epoch would have 50
    counts = np.bincount(drawn, minlength=50)
    assert counts.max() > 2
    assert numbers(read(DataConfig(sources=(source,), augment=AS_IT_IS), 10, 25)) == drawn[40:]


def test_a_few_shards_at_a_time_are_shuffled_and_an_epoch_is_still_whole(tmp_path, read):
    source = dataclasses.replace(numbered(tmp_path / "set", 20), shuffle_shards=2)  # 4 shards of 5
    drawn = numbers(read(DataConfig(sources=(source,), augment=AS_IT_IS), 0, 10))
    assert sorted(drawn[:20]) == sorted(drawn[20:]) == list(range(20))
    assert drawn[:20] != drawn[20:]
    for window in (drawn[:10], drawn[10:20]):
        assert len({n // 5 for n in window}) == 2  # of two shards
    assert sorted(drawn[:5]) != sorted(n for n in drawn[:10] if n // 5 == drawn[0] // 5)  # not one after the other


def test_shares_count_what_is_drawn(tmp_path, read):
    large, small = numbered(tmp_path / "large", 8), numbered(tmp_path / "small", 5, first=100)
    sources = (dataclasses.replace(large, weight=2.5), small)
    config = DataConfig(sources=sources, augment=AS_IT_IS)
    opened = pair_sources(config)
    for steps in (1, 3, 8):
        drawn = numbers(read(config, 0, steps))
        counted = source_shares(opened, config, drawn=4 * steps)
        assert [share.drawn for share in counted] == [sum(n < 100 for n in drawn), sum(n >= 100 for n in drawn)]
    assert [(share.path, share.samples, share.epochs) for share in counted] == [
        (large.path, 8, counted[0].drawn / 8),
        (small.path, 5, counted[1].drawn / 5),
    ]
    assert [share.drawn for share in source_shares(opened, config, drawn=0)] == [0, 0]


def test_tokens_stay_whole_for_a_text_tower_that_reads_the_padding(tmp_path, read, tokenizer):
    config = DataConfig(sources=(numbered(tmp_path / "set", 4, captions="red square"),))
    (batch,) = read(config, 0, 1, cut_tokens=False)
    assert np.array_equal(batch.tokens.numpy(), tokenizer.encode(["red square"] * 4))


def test_a_batch_brings_the_teachers_features_of_its_pictures_and_captions(tmp_path, read):
    source = numbered(tmp_path / "set", 4, captions="red\ngreen\n")
    keys = [f"{n:03d}" for n in range(4)]
    images, captions = tmp_path / "images.safetensors", tmp_path / "texts.safetensors"
    features = np.array([[n + 1, 0, 2] for n in range(4)], dtype=np.float32)
    safetensors.numpy.save_file({"features": features}, images, metadata={"keys": json.dumps(keys)})
    colors = np.array([[3, 4], [-1, 0]], dtype=np.float32)
    safetensors.numpy.save_file({"features": colors}, captions, metadata={"keys": json.dumps(["red", "green"])})
    source = dataclasses.replace(source, teacher_images=str(images), teacher_texts=str(captions), captions="turns")
    config = DataConfig(sources=(source,), augment=AS_IT_IS)
    for epoch, color in enumerate(([0.6, 0.8], [-1.0, 0.0])):
        (batch,) = read(config, epoch, epoch + 1)
        wanted = torch.tensor(features[[int(key) for key in batch.keys]])
        torch.testing.assert_close(batch.teacher_image_features, wanted / wanted.norm(dim=1, keepdim=True))
        torch.testing.assert_close(batch.teacher_text_features, torch.tensor([color] * 4))
    (plain,) = read(DataConfig(sources=(numbered(tmp_path / "plain", 4),)), 0, 1)
    assert (plain.teacher_image_features, plain.teacher_text_features) == (None, None)


def test_teachers_of_two_widths_are_named(tmp_path, read):
    sources = []
    for name, width in (("a", 2), ("b", 3)):
        path = tmp_path / f"{name}.safetensors"
        rows = np.ones((2, width), dtype=np.float32)
        safetensors.numpy.save_file({"features": rows}, path, metadata={"keys": json.dumps(["000", "001"])})
        sources.append(dataclasses.replace(numbered(tmp_path / name, 2), teacher_images=str(path)))
    with pytest.raises(DataError, match=r"one teacher in all sources\. Their widths are 2, 3"):
        read(DataConfig(sources=tuple(sources)), 0, 1)
