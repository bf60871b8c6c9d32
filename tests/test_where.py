"""Where a picture shows what words say: places, boxes, parts and maps, from Python and by the commands."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundles import fitting, make, new_tokenizer
from diptych import where
from diptych.cli import segment
from diptych.cli.main import main
from diptych.cli.where import pixel_at, pixel_box
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.images import open_image
from diptych.errors import ConfigError, DataError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.naflex import NaFlexTowerConfig
from diptych.sets.open import read_labelled
from diptych.torch_runtime import generator
from diptych.weights.bundle import Bundle
from diptych.weights.normalise import normalise
from diptych.weights.registry import load_in_torch
from diptych.where import FITS, LARGER, NONE, HeatMaps, Locator, encode_whole, other_words, whole_pixels, with_map_size
from tower_kinds import image_of, preprocess_of

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def pictograms() -> Bundle:
    return load_in_torch("diptych-pictogram")


def drawings(*names: str) -> list[Image.Image]:
    held_out = read_labelled(data_path(HELD_OUT))
    return [held_out.open(held_out.classnames.index(name)) for name in names]


def side_by_side(*names: str) -> Image.Image:
    sheet = Image.new("RGB", (64 * len(names), 64), "white")
    for number, one in enumerate(drawings(*names)):
        sheet.paste(one, (64 * number, 0))
    return sheet


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.png"
    side_by_side("banana", "umbrella").save(path)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*map(str, words), "--model", "diptych-pictogram"])
        return code, *capsys.readouterr()

    return run_


def maps_of(heat: list[list[list[float]]], beaten: float = 1.0, **more: object) -> HeatMaps:
    values = torch.tensor(heat)
    size = (10 * values.shape[2], 10 * values.shape[1])
    given = {
        "frame": (0.0, 0.0, 1.0, 1.0),
        "picture": Image.new("RGB", size),
        "beaten": torch.full_like(values, beaten),
    }
    texts = tuple(f"text {number}" for number in range(len(values)))
    return HeatMaps(texts=texts, heat=values, **(given | more))  # pyright: ignore[reportArgumentType]


def test_each_drawing_of_a_pair_is_found_in_its_half(pictograms):
    first, second = Locator(pictograms, ["banana", "umbrella"])(side_by_side("banana", "umbrella")).found()
    assert first.point[0] < 0.5 < second.point[0]
    assert first.box[2] <= 0.5 <= second.box[0]
    first, second = Locator(pictograms, ["banana", "umbrella"])(side_by_side("umbrella", "banana")).found()
    assert second.point[0] < 0.5 < first.point[0]


def test_a_text_alone_is_compared_with_words_of_all_kinds(pictograms):
    picture = side_by_side("banana", "umbrella")
    maps = Locator(pictograms, ["umbrella"])(picture)
    (found,) = maps.found()
    assert found.point[0] > 0.5
    assert found.beaten > 0.95
    words, (umbrella,) = (torch.from_numpy(pictograms.encode_texts(some)) for some in (other_words(), ["umbrella"]))
    grid, _ = encode_whole(with_map_size(pictograms), picture)
    near = torch.nn.functional.normalize(grid, dim=-1) @ words.T  # [h, w, K]
    text = torch.nn.functional.normalize(grid, dim=-1) @ umbrella
    torch.testing.assert_close(maps.heat[0], text - near.mean(dim=-1), rtol=0, atol=1e-5)
    torch.testing.assert_close(maps.beaten[0], (near < text[..., None]).float().mean(dim=-1), rtol=0, atol=1e-5)


def test_other_words_are_words_and_come_from_the_package():
    words = other_words()
    assert len(words) == len(set(words)) > 100
    assert not any(":" in word for word in words)


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet"])
@pytest.mark.parametrize("size", [(60, 20), (20, 60), (40, 40)])
def test_all_of_a_picture_is_looked_at_in_its_own_shape(name, size):
    bundle = with_map_size(make(name, new_tokenizer()), 128)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    pixels, (left, top, right, bottom) = whole_pixels(bundle, picture)
    assert pixels.shape == (128, 128, 3)
    assert max(right - left, bottom - top) == 128
    assert min(right - left, bottom - top) == max(1, round(128 * min(size) / max(size)))
    grid, frame = encode_whole(bundle, picture)
    whole = bundle.encode_grid(pixels[None])[0]
    side = len(whole)
    assert max(grid.shape[:2]) == side
    assert abs(min(grid.shape[:2]) - side * min(size) / max(size)) < 1
    cell = (frame[2] - frame[0]) / grid.shape[1] * size[0], (frame[3] - frame[1]) / grid.shape[0] * size[1]
    assert cell[0] == pytest.approx(cell[1], rel=0.3)  # a cell is a square of the picture


def test_a_picture_that_keeps_its_shape_has_a_grid_of_it():
    config, tokenizer = image_of(NaFlexTowerConfig), new_tokenizer()
    text = dataclasses.replace(fitting("tiny-vit", tokenizer).text)
    model = CLIP(CLIPConfig(embed_dim=24, image=config, text=text), generator(0)).eval()
    bundle = with_map_size(Bundle(model=model, preprocess=preprocess_of(config), tokenizer=tokenizer))
    grid, frame = encode_whole(bundle, Image.new("RGB", (80, 20)))
    assert grid.shape == (4, 16, 24)
    assert frame == (0, 0, 1, 1)


def test_a_place_outside_of_the_texts_that_fit_has_no_label():
    maps = maps_of([[[1.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]])
    assert maps.labels().tolist() == [[0, 1, 0]]
    few = maps_of([[[1.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]], beaten=FITS - 0.01)
    assert few.labels().tolist() == [[NONE] * 3]
    assert few.labels(fits=0).tolist() == [[0, 1, 0]]
    assert few.parts() == []


def test_parts_are_connected_and_their_shares_add_up():
    parts = maps_of([[[1.0, 0.0, 1.0, 1.0]], [[0.0, 1.0, 0.0, 0.0]]]).parts()
    assert [(part.label, part.share) for part in parts] == [("text 0", 0.5), ("text 0", 0.25), ("text 1", 0.25)]
    assert parts[0].box == (0.5, 0.0, 1.0, 1.0)


def test_the_label_of_a_pixel_is_that_of_its_cell_also_where_the_grid_reaches_beyond_the_picture():
    maps = maps_of([[[1.0, 0.0]], [[0.0, 1.0]]])
    assert maps.label_map().tolist() == [[0] * 10 + [1] * 10] * 10
    shifted = maps_of([[[1.0, 0.0]], [[0.0, 1.0]]], frame=(-0.2, 0.0, 1.0, 1.0))  # cells of 12 pixels from -4
    assert shifted.label_map().tolist() == [[0] * 8 + [1] * 12] * 10


def test_places_and_boxes_are_shares_of_the_picture_and_never_beyond_it():
    maps = maps_of([[[0.0, 0.0], [0.0, 1.0]]], frame=(-0.25, 0.0, 1.25, 1.0))
    (found,) = maps.found()
    assert found.box == (0.5, 0.5, 1.0, 1.0)
    assert found.point == (0.75, 0.75)


def test_a_notebook_shows_the_maps_side_by_side():
    page = maps_of([[[1.0, 0.0]], [[0.0, 1.0]]])._repr_html_()
    assert page.count('src="data:image/jpeg;base64,') == page.count("src=") == page.count("fits better than") // 2 == 2


def test_maps_are_made_at_twice_the_models_size_or_as_asked():
    bundle = make("tiny-vit", new_tokenizer())
    assert with_map_size(bundle).preprocess.image_size == LARGER * bundle.preprocess.image_size
    assert with_map_size(bundle, 40).preprocess.image_size == 40
    with pytest.raises(ConfigError, match="patch_size must divide"):
        with_map_size(bundle, 41)


@pytest.mark.parametrize("size", [(300, 1), (1, 300), (1, 1), (300, 7), (2, 600), (149, 2), (5000, 3), (224, 1)])
def test_a_line_of_pixels_has_points_within_it_and_boxes_with_an_area(size):
    bundle = make("tiny-vit", new_tokenizer())
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    maps = Locator(bundle, ["a dog", "a cat"])(Image.fromarray(noise))
    for one in (*maps.found(), *maps.parts(fits=0)):
        left, top, right, bottom = one.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        shown = [int(edge) for edge in pixel_box(one.box, maps.picture).split(", ")]
        assert shown[0] < shown[2] <= size[0]
        assert shown[1] < shown[3] <= size[1]
    for one in maps.found():
        assert all(0 < share < 1 for share in one.point)
        assert all(int(at) < side for at, side in zip(pixel_at(one.point, maps.picture).split(", "), size, strict=True))
    assert maps.label_map(fits=0).shape == size[::-1]
    assert maps.overlay().size == maps.parts_overlay(fits=0).size == size
    assert "no picture" not in maps._repr_html_()


def test_a_box_is_told_in_whole_pixels_around_it_and_a_point_by_the_pixel_that_it_lies_in():
    picture = Image.new("RGB", (10, 100))
    assert pixel_box((0.21, 0.2, 0.39, 0.4000000001), picture) == "2, 20, 4, 40"
    assert pixel_box((0.51, 0.001, 0.59, 1.0), picture) == "5, 0, 6, 100"
    assert pixel_at((0.999, 0.058), picture) == "9, 5"
    assert pixel_at((1.0, 0.0), picture) == "9, 0"


def test_texts_that_are_none_are_refused():
    bundle = make("tiny-vit", new_tokenizer())
    with pytest.raises(DataError, match="texts must be a list"):
        Locator(bundle, "a dog")
    with pytest.raises(DataError, match="labels must differ"):
        Locator(bundle, ["a dog", "a dog"])


def gradient_map(bundle: Bundle, picture: Image.Image, texts: list[str]) -> torch.Tensor:
    """Grad-CAM's question of the last grid, without `grid`: by how much each position raises the text's cosine."""
    tower = bundle.model.image
    pixels, _ = whole_pixels(bundle, picture)
    batch = normalise(bundle.preprocess, torch.from_numpy(pixels[None]))
    features = torch.from_numpy(bundle.encode_texts(texts))
    with torch.no_grad():
        last = tower._grid(batch)  # pyright: ignore[reportCallIssue]
    last.requires_grad_(True)
    feature = torch.nn.functional.normalize(tower.project(tower.pool(last)), dim=-1)  # pyright: ignore
    (feature @ (features[0] - features[1])).sum().backward()
    assert last.grad is not None
    return (last.grad * last).sum(dim=1)[0].detach()  # [h, w]


def test_gradients_point_into_the_drawing_that_the_map_points_into(pictograms):
    """An attention pool weighs positions, and a gradient knows these weights: so the two agree as a rule, not always.

    Of mean pools they are the same number, see `test_efficientnet_tower`.
    """
    large, random = with_map_size(pictograms), np.random.default_rng(0)
    names = read_labelled(data_path(HELD_OUT)).classnames
    agree, correlations = 0, []
    for pair in random.permutation(len(names))[:40].reshape(20, 2):
        left, right = (names[number] for number in pair)
        picture = side_by_side(left, right)
        heat = Locator(pictograms, [left, right])(picture).heat[0]  # [2, 4]
        by_gradient = gradient_map(large, picture, [left, right])[1:3]  # the rows that the picture fills
        agree += (int(heat.argmax()) % 4 < 2) == (int(by_gradient.argmax()) % 4 < 2)
        correlations.append(np.corrcoef(heat.flatten(), by_gradient.flatten())[0, 1])
    assert agree >= 16  # of 20; by chance so many in 0.6 % of such tests
    assert np.median(correlations) > 0.4


def test_where_names_the_place_of_each_text_and_draws_its_map(scene, run, tmp_path):
    code, out, err = run("where", scene, "banana", "umbrella", "--out", tmp_path / "maps")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split("  ")[0] == "text"
    assert int(lines[1].split()[1].rstrip(",")) < 64 < int(lines[2].split()[1].rstrip(","))
    assert open_image(tmp_path / "maps" / "scene.umbrella.png").size == (128, 64)
    code, out, _ = run("where", scene, "banana", "umbrella", "--json")
    first, second = json.loads(out)["images"][0]["texts"]
    assert first["point"][0] < 0.5 < second["point"][0]


def test_segment_divides_a_picture_and_says_what_is_none_of_the_labels(scene, run, tmp_path):
    side_by_side("sailboat", "guitar").save(scene)
    code, out, err = run("segment", scene, "sailboat", "guitar", "--fits", 0, "--out", tmp_path / "parts")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].split() == ["(none", "of", "these)", "0.0%"]
    labels = np.asarray(open_image(tmp_path / "parts" / "scene.labels.png"))[..., 0]
    assert labels.shape == (64, 128)
    assert (labels[:, :64] == 1).mean() > 0.7
    assert (labels[:, 64:] == 2).mean() > 0.8
    assert open_image(tmp_path / "parts" / "scene.parts.png").size == (128, 64)
    _, out, _ = run("segment", scene, "umbrella", "--fits", 1.0, "--json")
    assert json.loads(out)["images"][0]["parts"] == []
    assert segment._FITS == where.FITS


def test_no_picture_of_the_output_takes_the_place_of_another(scene, run, tmp_path):
    for name in ("many/a/1.png", "many/b/1.png", "many/b/1.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(scene).save(tmp_path / name)
    assert run("where", tmp_path / "many", "banana!", "banana?", "key", "--out", tmp_path / "maps")[0] == 0
    texts = ("banana--1", "banana--2", "key-3")
    assert written(tmp_path / "maps") == sorted(
        f"{name}.{text}.png" for name in ("a/1.png", "b/1.png", "b/1.webp") for text in texts
    )
    assert run("segment", tmp_path / "many", "banana", "--out", tmp_path / "parts")[0] == 0
    assert len(written(tmp_path / "parts")) == 6


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_what_the_commands_refuse_is_said_in_one_line(scene, run, tmp_path):
    assert run("where", scene)[2].startswith("diptych: there must be a text to look for.")
    assert run("segment", scene)[2].startswith("diptych: there must be 1 to 254 labels.")
    assert "--fits must be a share" in run("segment", scene, "a dog", "--fits", 2)[2]
    assert "a multiple of 32" in run("where", scene, "a dog", "--size", 100)[2]
    (tmp_path / "torn.png").write_bytes(scene.read_bytes()[:50])
    code, out, err = run("where", tmp_path, "banana")
    assert code == 0
    assert "torn.png" in err
    assert "torn.png" not in out
    assert run("where", tmp_path / "torn.png", "banana")[0] == 2
