"""curate/scores.py: pictures scored with a model."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from conftest import png
from diptych.curate import scores
from diptych.curate.scores import BestShare, ClipScore, DenyPictures
from diptych.errors import ConfigError
from diptych.rows.stage import DROPPED, Counting, Whole, WithPictures
from pair_tables import pairs_of

COLOURS = ["red", "lime", "blue", "white", "black"]


@pytest.fixture
def bundle(tiny_bundle, monkeypatch):
    monkeypatch.setattr(scores, "model_of", lambda name: tiny_bundle)
    monkeypatch.setattr(scores, "BATCH", 2)  # so that there is more than one
    scores._concepts.cache_clear()
    yield tiny_bundle
    scores._concepts.cache_clear()


def pictured(*texts):
    pictures = [png(Image.new("RGB", (40, 30), COLOURS[i % 5])) for i in range(len(texts))]
    return pairs_of(*texts, picture=pictures)


def by_hand(bundle, rows, prefix=""):
    values = []
    for picture, text in zip(rows["picture"].to_pylist(), rows["text"].to_pylist(), strict=True):
        image = bundle.encode_images([picture])  # [1, D]
        cosines = image @ bundle.encode_texts([prefix + caption for caption in text.split("\n")]).T
        values.append(cosines.mean().item())
    return values


def test_a_score_is_the_mean_cosine_of_a_picture_with_its_captions(bundle):
    rows = pictured("a red kite", "a blue boat\na red boat", "a kite", "red", "a boat")
    judged = ClipScore().apply(rows, Whole())
    assert judged.kept["clip_score"].to_pylist() == pytest.approx(by_hand(bundle, rows), abs=2e-3)  # bfloat16
    assert judged.kept.column_names == [name for name in rows.column_names if name != "picture"] + ["clip_score"]
    assert judged.kept["clip_score"].type == pa.float32()
    prefixed = ClipScore(prefix="a photo of ").apply(rows, Whole()).kept["clip_score"].to_pylist()
    assert prefixed == pytest.approx(by_hand(bundle, rows, "a photo of "), abs=2e-3)


def test_a_score_that_is_too_low_and_a_picture_that_cannot_be_read_are_dropped(bundle):
    rows = pictured("a red kite", "a blue boat", "a red boat")
    rows = rows.set_column(rows.column_names.index("picture"), "picture", [[rows["picture"][0].as_py(), b"bad", b""]])
    all_kept = ClipScore().apply(rows, Whole())
    assert all_kept.dropped["cause"].to_pylist() == ["not an image", "empty"]
    score = all_kept.kept["clip_score"][0].as_py()
    at_it = ClipScore(min_score=round(score, 4)).apply(rows, Whole())
    assert len(at_it.kept) == 1
    above = ClipScore(min_score=round(score + 0.0001, 4)).apply(rows, Whole())
    assert above.dropped.schema == DROPPED
    row = above.dropped.to_pylist()[-1]
    assert (row["cause"], row["value"]) == ("clip-score", f"{score:.4f}")
    assert row["limit"] == f"a score of at least {round(score + 0.0001, 4):g}"


def test_no_row_at_all_is_scored(bundle):
    judged = ClipScore(min_score=0.1).apply(pictured(), Whole())
    assert (len(judged.kept), len(judged.dropped)) == (0, 0)
    assert judged.kept["clip_score"].type == pa.float32()


def test_texts_that_are_too_long_are_cut(bundle):
    assert len(ClipScore().apply(pictured("a red kite " * 100), Whole()).kept) == 1


def test_pictures_of_what_a_list_names_are_dropped_with_the_line(bundle, tmp_path):
    file = tmp_path / "deny.txt"
    file.write_text("a red kite\na blue boat\n", encoding="utf-8")
    rows = pictured("one", "two", "three")
    cosines = bundle.encode_images(rows["picture"].to_pylist()) @ bundle.encode_texts(["a red kite", "a blue boat"]).T
    best = cosines.max(axis=1)
    between = float(np.sort(best)[:2].mean())
    stage = DenyPictures(deny_list=file, threshold=between)
    judged = stage.apply(rows, Whole())
    lowest = int(best.argmin())
    assert judged.kept["text"].to_pylist() == [rows["text"][lowest].as_py()]
    concepts = [["a red kite", "a blue boat"][i] for i in cosines.argmax(axis=1).tolist()]
    gone = [i for i in range(3) if i != lowest]
    for i, row in zip(gone, judged.dropped.to_pylist(), strict=True):
        score, concept = row["value"].split(" ", 1)
        assert float(score) == pytest.approx(best[i].item(), abs=2e-3)
        assert (concept, row["cause"]) == (concepts[i], "deny-pictures")
    assert judged.dropped["limit"][0].as_py() == f"below {between:g} for each line of deny.txt"
    assert stage.files() == [str(file)]


def scored(*values):
    rows = pairs_of(*[f"text {i}" for i in range(len(values))])
    return rows.append_column("clip_score", pa.array(values, pa.float32()))


def best(stage, *parts):
    facts = stage.total(stage.count(rows) for rows in parts)
    judged = [stage.apply(rows, Whole(facts=facts)) for rows in parts]
    return [text for one in judged for text in one.kept["text"].to_pylist()], pa.concat_tables(
        one.dropped for one in judged
    )


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
@pytest.mark.parametrize(
    ("share", "kept"), [(0.2, [1]), (0.4, [1, 3, 4]), (0.6, [1, 3, 4]), (0.61, [0, 1, 3, 4]), (1, [0, 1, 2, 3, 4])]
)
def test_the_best_share_is_of_the_whole_and_keeps_ties(cut, share, kept):
    rows = scored(0.1, 0.9, -0.2, 0.5, 0.5)
    names = rows["text"].to_pylist()
    texts, dropped = best(BestShare(share=share), rows.slice(0, cut), rows.slice(cut))
    assert texts == [names[i] for i in kept]
    assert len(dropped) == 5 - len(kept)


def test_what_is_dropped_says_its_score_and_the_threshold():
    _, dropped = best(BestShare(share=0.5), scored(0.25, 0.31, None))
    assert dropped.select(["value", "limit"]).to_pylist() == [
        {"value": "0.2500", "limit": "at least 0.3100, the best 50% of 2"},
        {"value": "no score", "limit": "at least 0.3100, the best 50% of 2"},
    ]
    assert best(BestShare(), scored(None))[0] == []
    assert best(BestShare(), scored())[0] == []


def test_the_best_share_is_that_of_the_plain_twin():
    values = np.round(np.random.default_rng(0).normal(0.2, 0.05, 5_000), 4)
    rows = scored(*values.tolist())
    for share in (0.001, 0.1, 0.3, 0.77):
        stage = BestShare(share=share)
        facts = stage.total(stage.count(rows.slice(i, 700)) for i in range(0, 5_000, 700))
        threshold = sorted(values, reverse=True)[int(np.ceil(share * 5_000)) - 1]
        assert facts.to_pylist() == [{"at_least": pytest.approx(threshold), "rows": 5_000}]
        assert len(stage.apply(rows, Whole(facts=facts)).kept) == (values >= threshold).sum()


def test_stages_are_what_the_runner_takes_them_for_and_wrong_options_are_named(tmp_path):
    assert isinstance(BestShare(), Counting)
    assert isinstance(ClipScore(), WithPictures)
    assert isinstance(DenyPictures(deny_list=tmp_path, threshold=0.2), WithPictures)
    with pytest.raises(ConfigError, match="share must be above 0"):
        BestShare(share=30)
    with pytest.raises(ConfigError, match="min_score must be a cosine"):
        ClipScore(min_score=28)
