from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from diptych.classify import class_weights
from diptych.errors import ConfigError, DataError
from diptych.eval import features as module
from diptych.eval.features import ModelFeatures
from diptych.eval.zero_shot import encode_labelled
from diptych.sets.captioned import read_retrieval
from diptych.sets.digest import digest
from diptych.sets.open import read_labelled
from diptych.weights.bundle import Bundle
from serving import latin_bundle


class Counting:
    """How often the model was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pictures = self.texts = 0
        of_pictures, of_texts = Bundle.encode_pixels_and_trunk, Bundle.encode_texts

        def pictures(bundle, pixels):
            self.pictures += len(pixels)
            return of_pictures(bundle, pixels)

        def texts(bundle, some, **options):
            self.texts += len(some)
            return of_texts(bundle, some, **options)

        monkeypatch.setattr(Bundle, "encode_pixels_and_trunk", pictures)
        monkeypatch.setattr(Bundle, "encode_texts", texts)


def test_one_pass_gives_what_each_tower_gives_alone(tiny_bundle: Bundle, labelled_sets: Path):
    data = read_labelled(labelled_sets / "shades")
    found = ModelFeatures(tiny_bundle, batch_size=5).pictures(data)
    twin = encode_labelled(tiny_bundle, data, batch_size=5)
    assert torch.equal(found.image_features, twin.image_features)
    assert (found.kept, found.skipped) == (twin.kept, {"not an image": 1})
    assert found.examples(data).targets.tolist() == twin.targets.tolist()
    first = torch.from_numpy(np.stack([tiny_bundle.preprocess(data.open(index)) for index in found.kept[:5]]))
    with torch.no_grad():
        assert torch.equal(found.trunk[:5], tiny_bundle.model.image.trunk(first))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_from_the_cache_they_are_the_same_bit_for_bit(
    tiny_bundle: Bundle, labelled_sets: Path, tmp_path, monkeypatch, precision
):
    data = read_labelled(labelled_sets / "shades")
    sha256 = digest(labelled_sets / "shades", "test")
    fresh, again = (ModelFeatures(tiny_bundle, cache=tmp_path / "cache", precision=precision) for _ in range(2))
    first = fresh.pictures(data, sha256), fresh.class_weights(data.classnames, ["{}", "a {}"]), fresh.texts(["red bar"])
    asked = Counting(monkeypatch)
    second = (
        again.pictures(data, sha256),
        again.class_weights(data.classnames, ["{}", "a {}"]),
        again.texts(["red bar"]),
    )
    assert (asked.pictures, asked.texts) == (0, 0)
    assert (second[0].kept, second[0].skipped) == (first[0].kept, first[0].skipped)
    assert torch.equal(second[0].image_features, first[0].image_features)
    assert torch.equal(second[0].trunk, first[0].trunk)
    assert torch.equal(second[1], first[1])
    assert torch.equal(second[2], first[2])
    assert first[0].image_features.dtype == torch.float32
    torch.testing.assert_close(first[0].image_features.norm(dim=1), torch.ones(11))


def test_the_cache_knows_model_data_prompts_and_precision(
    tiny_bundle: Bundle, labelled_sets: Path, tmp_path, monkeypatch
):
    asked = Counting(monkeypatch)
    data = read_labelled(labelled_sets / "colours")

    def ask(bundle=tiny_bundle, sha256="a", template="{}", precision="float32") -> tuple[int, int]:
        before = asked.pictures, asked.texts
        features = ModelFeatures(bundle, cache=tmp_path, precision=precision)
        features.pictures(data, sha256)
        features.class_weights(data.classnames, [template])
        return asked.pictures - before[0], asked.texts - before[1]

    assert ask() == (12, 3)
    assert ask() == (0, 0)
    assert ask(sha256="b") == (12, 0)
    assert ask(template="a {}") == (0, 3)
    assert ask(precision="bfloat16") == (12, 3)
    other = Bundle(model=type(tiny_bundle.model)(tiny_bundle.model.config, torch.Generator().manual_seed(9)).eval(),
                   preprocess=tiny_bundle.preprocess, tokenizer=tiny_bundle.tokenizer)  # fmt: skip
    assert ask(bundle=other) == (12, 3)
    monkeypatch.setattr(module, "__version__", "9.9")
    assert ask() == (12, 3)


def test_without_a_digest_or_a_folder_nothing_is_kept(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    data = read_labelled(labelled_sets / "colours")
    ModelFeatures(tiny_bundle, cache=tmp_path / "cache").pictures(data)
    ModelFeatures(tiny_bundle).pictures(data, "a")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("fault", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_or_foreign_file_is_said_and_made_anew(tiny_bundle: Bundle, tmp_path: Path, fault: str):
    notes: list[str] = []
    features = ModelFeatures(tiny_bundle, cache=tmp_path, on_note=notes.append)
    right = features.texts(["red bar", "green cross"])
    [path] = tmp_path.glob("texts-*.safetensors")
    content = bytearray(path.read_bytes())
    if fault == "cut":
        path.write_bytes(content[:-8])
    elif fault == "flipped":
        content[-3] ^= 1
        path.write_bytes(content)
    elif fault == "foreign":
        safetensors.torch.save_file({"features": right + 1}, path, {"key": "another"})
    else:
        path.write_bytes(b"")
    assert torch.equal(features.texts(["red bar", "green cross"]), right)
    [note] = notes
    assert str(path) in note
    assert note.endswith("Its features are computed anew.")
    assert torch.equal(features.texts(["red bar", "green cross"]), right)
    assert len(notes) == 1  # it is whole again


def test_where_nothing_can_be_written_features_are_used_all_the_same(tiny_bundle: Bundle, tmp_path: Path):
    (tmp_path / "cache").write_text("no folder")
    notes: list[str] = []
    found = ModelFeatures(tiny_bundle, cache=tmp_path / "cache", on_note=notes.append).texts(["red bar"])
    assert np.array_equal(found.numpy(), tiny_bundle.encode_texts(["red bar"]))
    assert notes[0].endswith("Features are used, and not kept.")


def test_texts_equal_those_without_a_cache(tiny_bundle: Bundle, labelled_sets: Path, tmp_path: Path):
    features, labels, templates = ModelFeatures(tiny_bundle, cache=tmp_path), ["red", "green"], ["{}", "a {}"]
    for _ in range(2):
        twin = class_weights(tiny_bundle, labels, templates)
        assert np.array_equal(features.class_weights(labels, templates).numpy(), twin)
    captions = [text for some in read_retrieval(labelled_sets / "captioned").captions for text in some]
    assert np.array_equal(features.texts(captions).numpy(), tiny_bundle.encode_texts(captions))


def test_precision_moves_features_a_little(tiny_bundle: Bundle, labelled_sets: Path):
    data = read_labelled(labelled_sets / "colours")
    exact, fast = (ModelFeatures(tiny_bundle, precision=name).pictures(data) for name in ("float32", "bfloat16"))
    cosines = (exact.image_features * fast.image_features).sum(dim=1)
    assert 0.99 < cosines.min() < 1
    assert ModelFeatures(tiny_bundle, precision="auto").precision in ("float32", "bfloat16")


def test_what_cannot_be_is_said(tiny_bundle: Bundle, labelled_sets: Path):
    with pytest.raises(ConfigError, match=r"precision must be one of auto, float32, bfloat16\. Got 'half'"):
        ModelFeatures(tiny_bundle, precision="half")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        ModelFeatures(tiny_bundle, batch_size=0)
    for path in (labelled_sets / "colours" / "test").rglob("*.png"):
        path.write_text("broken")
    with pytest.raises(DataError, match=r"It has none of 12 \(not an image 12\)"):
        ModelFeatures(tiny_bundle).pictures(read_labelled(labelled_sets / "colours"))


def test_class_names_that_the_model_does_not_read_are_told():
    notes: list[str] = []
    features = ModelFeatures(latin_bundle(), on_note=notes.append)
    features.class_weights([["dog", "犬"], "cat"], ["{}"])
    assert len(notes) == 1
    assert notes[0].startswith("1 of 3 class names hold words that this model does not know, e.g. '犬'")
    features.class_weights(["dog", "cat"], ["{}"])
    assert len(notes) == 1
