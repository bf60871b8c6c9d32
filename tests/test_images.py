import io
import struct
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diptych import config
from diptych.data.images import CLIP_MEAN, CLIP_STD, Preprocess, open_image
from diptych.errors import ConfigError, ImageError, WeightsError


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_header(width, height):
    """A PNG of grey pixels that promises a size and holds no pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def first_pixel(source):
    image = open_image(source)
    assert image.mode == "RGB"
    return tuple(np.array(image)[0, 0].tolist())


# How a file stores an upright picture, by what the EXIF standard says of the stored first row and first column.
STORED = {
    1: lambda up: up,  # top, left
    2: lambda up: up[:, ::-1],  # top, right
    3: lambda up: up[::-1, ::-1],  # bottom, right
    4: lambda up: up[::-1],  # bottom, left
    5: lambda up: up.T,  # left, top
    6: lambda up: up[:, ::-1].T,  # right, top
    7: lambda up: up[::-1, ::-1].T,  # right, bottom
    8: lambda up: up[::-1].T,  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_once(orientation):
    upright = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))), exif=exif)
    image = open_image(data)
    np.testing.assert_array_equal(np.array(image)[..., 0], upright)
    np.testing.assert_array_equal(np.array(open_image(image)), np.array(image))
    np.testing.assert_array_equal(np.array(open_image(Image.open(io.BytesIO(data))))[..., 0], upright)


def test_damaged_exif_does_not_cost_the_picture():
    assert first_pixel(encoded(Image.new("RGB", (8, 8), "white"), "WEBP", exif=b"Exif\0\0garbage")) == (255, 255, 255)


def test_alpha_lies_over_white():
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 0, 0])
    palette_alpha = Image.new("PA", (1, 1), (0, 128))
    palette_alpha.putpalette([255, 0, 0])
    pixels = {
        "RGBA": (encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51))), (204, 204, 204)),
        "LA": (encoded(Image.new("LA", (1, 1), (0, 51))), (204, 204, 204)),
        "tRNS of a palette": (encoded(palette, transparency=bytes([128])), (255, 127, 127)),
        "one palette entry is clear": (encoded(palette, "GIF", transparency=0), (255, 255, 255)),
        "one colour is clear": (encoded(Image.new("RGB", (1, 1), (1, 2, 3)), transparency=(1, 2, 3)), (255, 255, 255)),
        "one grey is clear": (encoded(Image.new("L", (1, 1), 9), transparency=9), (255, 255, 255)),
        "RGBa": (Image.new("RGBA", (1, 1), (0, 0, 0, 51)).convert("RGBa"), (204, 204, 204)),
        "La": (Image.new("LA", (1, 1), (0, 51)).convert("La"), (204, 204, 204)),
        "PA": (palette_alpha, (255, 127, 127)),
        "clear means white, whatever colour it hides": (Image.new("RGBA", (1, 1), (9, 9, 9, 0)), (255, 255, 255)),
    }
    assert {name: first_pixel(source) for name, (source, _) in pixels.items()} == {n: p for n, (_, p) in pixels.items()}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257_and_rounded(kind):
    stored = np.array([[0, 128, 129, 25_700, 65_535]], dtype=np.uint16)
    expected = [[0, 0, 1, 100, 255]]
    assert np.array(open_image(encoded(Image.fromarray(stored), kind)))[..., 2].tolist() == expected
    assert np.array(open_image(Image.fromarray(stored.astype(np.int32))))[..., 2].tolist() == expected
    big_endian = Image.frombytes("I;16B", (5, 1), stored.astype(">u2").tobytes())
    assert np.array(open_image(big_endian))[..., 2].tolist() == expected


def test_other_modes_become_rgb():
    assert first_pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF")) == (255, 0, 0)
    jpeg = first_pixel(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert np.abs(np.subtract(jpeg, (255, 0, 0))).max() <= 3
    assert first_pixel(encoded(Image.new("1", (1, 1), 1))) == (255, 255, 255)
    assert first_pixel(encoded(Image.new("L", (1, 1), 77))) == (77, 77, 77)
    assert first_pixel(Image.new("HSV", (1, 1), (0, 255, 255))) == (255, 0, 0)
    assert first_pixel(Image.new("YCbCr", (1, 1), (90, 128, 128))) == (90, 90, 90)
    assert np.abs(np.subtract(first_pixel(Image.new("LAB", (1, 1), (255, 128, 128))), 255)).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)  # it is there
    assert np.abs(np.subtract(first_pixel(data), (255, 0, 0))).max() <= 3


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    image = noise(5, 4)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(image))
    with path.open("rb") as file:
        sources = [str(path), path, path.read_bytes(), file, image, Image.open(path)]
        for source in sources:
            np.testing.assert_array_equal(np.array(open_image(source)), np.array(image))
        assert not file.closed
    assert open_image(image) is image


def test_what_is_no_picture_is_refused_with_its_path_and_cause(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    contents = {
        "empty.png": (b"", "empty"),
        "text.png": (b"hello", "not an image"),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", "not an image"),
        "drawing.png": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"),
        "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(20), "unsupported"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0", "unsupported"),
        "damaged.gif": (b"GIF89a" + b"\x01" * 60, "unreadable"),
    }
    for name, (content, cause) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=name) as raised:
            open_image(tmp_path / name)
        assert (name, raised.value.cause) == (name, cause)
        assert "\n" not in str(raised.value)
        if content:
            with pytest.raises(ImageError, match="<bytes>"):
                open_image(content)


def test_a_path_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png must be a picture, and no such file") as raised:
        open_image(tmp_path / "nowhere.png")
    assert raised.value.cause == "missing"
    with pytest.raises(ImageError, match="is a folder") as raised:
        open_image(tmp_path)
    assert raised.value.cause == "not an image"
    with pytest.raises(ImageError, match="cannot be opened") as raised:
        open_image("null\0character.png")
    assert raised.value.cause == "unreadable"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "QOI"])
def test_truncated_files_are_refused(kind):
    data = encoded(noise(64, 48), kind)
    for share in (0.02, 0.3, 0.6, 0.95):
        with pytest.raises(ImageError) as raised:
            open_image(data[: int(len(data) * share)])
        assert raised.value.cause in ("truncated", "unreadable")
    assert raised.value.cause == "truncated"


def test_bombs_are_refused_by_their_header():
    with pytest.raises(ImageError, match=r"at most 100,000,000 pixels. It has 30,000 x 30,000") as raised:
        open_image(png_header(30_000, 30_000))
    assert raised.value.cause == "too large"
    with pytest.raises(ImageError, match="at most 19 pixels"):
        open_image(encoded(noise(5, 4)), max_pixels=19)
    with pytest.raises(ImageError, match="at most 19 pixels"):
        open_image(noise(5, 4), max_pixels=19)
    assert open_image(encoded(noise(5, 4)), max_pixels=20).size == (5, 4)


def test_the_limit_is_ours_not_the_global_one_of_pillow():
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError) as raised:  # Pillow would warn from 89,478,485 pixels
        open_image(png_header(9_600, 9_600))
    assert raised.value.cause == "truncated"
    assert before == Image.MAX_IMAGE_PIXELS


def test_values_of_unknown_range_are_refused():
    for image in (Image.new("F", (2, 2)), Image.new("I", (2, 2), 65_536), Image.new("I", (2, 2), -1)):
        with pytest.raises(ImageError) as raised:
            open_image(image)
        assert raised.value.cause == "unsupported"
    with pytest.raises(ImageError, match="0 x 3") as raised:
        open_image(Image.new("RGB", (0, 3)))
    assert raised.value.cause == "empty"


def hf_processor(preprocess):
    module = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    return module.CLIPImageProcessorPil(**preprocess.to_hf())


@pytest.mark.parametrize("size", [(90, 60), (64, 64), (33, 120), (640, 100)])
def test_pictures_that_keep_their_shape_come_out_as_those_of_siglip_2(size):
    module = pytest.importorskip("transformers.models.siglip2.image_processing_pil_siglip2")
    processor = module.Siglip2ImageProcessorPil(patch_size=16, max_num_patches=60)
    preprocess = Preprocess.from_hf(processor.to_dict())
    assert (preprocess.patch_size, preprocess.shape) == (16, (60, 770))
    assert Preprocess.from_hf(preprocess.to_hf()) == preprocess
    theirs = processor(noise(*size), return_tensors="pt")
    ours = torch.from_numpy(preprocess(noise(*size)))
    count = int(theirs["pixel_attention_mask"].sum())
    assert ours[:, :2].amax(dim=0).tolist() == theirs["spatial_shapes"][0].tolist()
    assert int((ours[:, 0] > 0).sum()) == count
    torch.testing.assert_close(ours[:count, 2:], theirs["pixel_values"][0, :count], rtol=0, atol=1e-6)


def test_a_recipe_for_patches_that_cannot_be_is_named():
    for options, message in (
        ({"resize": "naflex"}, "patch_size must be at least 1 pixel where resize is 'naflex'"),
        ({"patch_size": 8}, "0 elsewhere. Got 8 and 0 with 'shortest'"),
        ({"max_patches": 9}, "0 elsewhere. Got 0 and 9 with 'shortest'"),
        ({"resize": "naflex", "patch_size": 5}, "patch_size must divide image_size"),
    ):
        with pytest.raises(ConfigError, match=message):
            Preprocess(image_size=32, **options)


SIZES = [(64, 64), (48, 48), (640, 480), (333, 500), (97, 101), (31, 20), (7, 9), (900, 20), (13, 800), (49, 48)]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_preprocess_equals_the_pillow_processor_of_transformers(resize, interpolation):
    for side in (48, 37):
        preprocess = Preprocess(image_size=side, resize=resize, interpolation=interpolation)
        processor = hf_processor(preprocess)
        for size in SIZES:
            theirs = processor(noise(*size), return_tensors="np")["pixel_values"][0]
            torch.testing.assert_close(preprocess(noise(*size)), theirs, rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(width=st.integers(1, 200), height=st.integers(1, 200), side=st.integers(1, 50))
def test_the_crop_is_the_middle_of_the_picture_with_its_shorter_side_resized(width, height, side):
    image = noise(width, height)
    scale = side / min(width, height)
    full = (side, int(scale * height + 1e-9)) if width <= height else (int(scale * width + 1e-9), side)
    left, top = (full[0] - side) // 2, (full[1] - side) // 2
    pixels = Preprocess(image_size=side).pixels(image)
    assert (pixels.shape, pixels.dtype) == ((side, side, 3), np.uint8)
    if max(width, height) <= 64 * min(width, height):
        whole = np.array(image.resize(full, Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(pixels, whole[top : top + side, left : left + side])


def test_a_strip_is_cropped_without_building_it_whole():
    def strip(length):
        pixels = np.zeros((2, length, 3), dtype=np.uint8)
        pixels[:, length // 2 :] = 200
        return Preprocess(image_size=224).pixels(Image.fromarray(pixels)).astype(int)

    # The middle is the same. The longer one, resized whole, would be 224 x 11,200,000 pixels.
    assert np.abs(strip(100_000) - strip(100)).max() <= 1


@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_preprocess_survives_hugging_face_and_plain_data(resize):
    preprocess = Preprocess(
        image_size=37, resize=resize, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)
    )
    assert Preprocess.from_hf(preprocess.to_hf()) == preprocess
    assert Preprocess.from_hf(hf_processor(preprocess).to_dict()) == preprocess
    assert config.from_dict(Preprocess, config.to_dict(preprocess)) == preprocess


def test_released_recipes_are_read():
    openai = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}
    assert Preprocess.from_hf(openai) == Preprocess(image_size=224, mean=CLIP_MEAN, std=CLIP_STD)
    siglip = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 256, "width": 256}}
    half = (0.5, 0.5, 0.5)
    assert Preprocess.from_hf(siglip) == Preprocess(image_size=256, resize="squash", mean=half, std=half)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_resize": False}, "do_resize must be true"),
        ({"do_pad": True}, "do_pad must be false"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor must be 1 / 255"),
        ({"resample": 1}, "resample must be"),
        ({"do_center_crop": False}, "do_center_crop must be true"),
        ({"crop_size": {"height": 32, "width": 40}}, "crop_size must be one number, or a height and an equal width"),
        ({"size": {"shortest_edge": 36}}, r"crop_size must be equal to size \(36\)"),
        ({"size": {"height": 32, "width": 40}}, "size must be one number"),
        ({"image_processor_type": "BeitImageProcessor"}, "image_processor_type must be one of CLIPImageProcessor"),
        ({"image_std": [0.0, 1.0, 1.0]}, "std above 0"),
        ({"image_mean": 0.5}, "no valid picture recipe"),
    ],
)
def test_a_foreign_recipe_that_we_do_not_do_is_refused(change, message):
    with pytest.raises(WeightsError, match=message):
        Preprocess.from_hf({**Preprocess(image_size=32).to_hf(), **change})


@pytest.mark.parametrize(
    "options",
    [{"image_size": 0}, {"resize": "pad"}, {"interpolation": "nearest"}, {"mean": (0.5, 0.5)}, {"std": (1, 1, 0)}],
)
def test_a_preprocess_that_makes_no_sense_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Preprocess(**{"image_size": 8, **options})


def test_heic_is_read_with_its_plugin_and_without_it_the_way_is_told(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 30))).save(tmp_path / "phone.heic", quality=90)
    image = open_image(tmp_path / "phone.heic")
    assert image.size == (64, 48)
    assert np.abs(np.array(image).mean(axis=(0, 1)) - (200, 30, 30)).max() < 6
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"phone\.heic is HEIC, which needs an extra: pip install 'diptych\[heif\]'"):
        open_image(tmp_path / "phone.heic")


@pytest.mark.parametrize("resize", ["shortest", "squash"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_fast_pixels_are_near_the_exact_ones_and_upright(resize, orientation):
    y, x = np.mgrid[:1200, :1600]
    smooth = np.stack([x / 8, y / 6, 100 + 80 * np.sin(x / 90) * np.cos(y / 70)], axis=-1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(smooth), "JPEG", quality=92, exif=exif)
    preprocess = Preprocess(image_size=64, resize=resize)
    pixels, facts = preprocess.fast_pixels(data, "photo.jpg")
    assert (facts.width, facts.height) == ((1600, 1200) if orientation == 1 else (1200, 1600))
    difference = np.abs(pixels.astype(int) - preprocess.pixels(data))
    assert (difference.mean() < 1, difference.max() < 8) == (True, True)


def test_fast_pixels_of_a_small_picture_are_the_exact_ones():
    draw = np.random.default_rng(0)
    for kind in ("PNG", "JPEG"):
        data = encoded(Image.fromarray(draw.integers(0, 256, (50, 70, 3), dtype=np.uint8)), kind)
        preprocess = Preprocess(image_size=32)
        np.testing.assert_array_equal(preprocess.fast_pixels(data, "a")[0], preprocess.pixels(data))


def test_a_jpeg_is_decoded_small_only_down_to_what_is_asked():
    data = encoded(Image.new("RGB", (800, 600)), "JPEG")
    sizes = {at_least: open_image(data, at_least=at_least).size for at_least in (None, 601, 300, 75)}
    assert sizes == {None: (800, 600), 601: (800, 600), 300: (400, 300), 75: (100, 75)}


def test_fast_pixels_refuse_what_the_exact_ones_refuse():
    with pytest.raises(ImageError, match="photo must be a picture, and is empty"):
        Preprocess(image_size=32).fast_pixels(b"", "photo")


def test_an_efficientnets_recipe_squashes_then_crops_and_its_numbers_are_put_as_the_others_have_them():
    pil = pytest.importorskip("transformers.models.efficientnet.image_processing_pil_efficientnet")
    square = {"size": {"height": 50, "width": 50}, "crop_size": {"height": 42, "width": 42}, "do_center_crop": True}
    picture = Image.effect_mandelbrot((70, 60), (-2, -1, 1, 1), 20).convert("RGB")
    for options in (
        {"rescale_factor": 2 / 255, "rescale_offset": True, "do_normalize": False, "include_top": False},
        {"include_top": True},
        {"include_top": False, "resample": 2},
    ):
        processor = pil.EfficientNetImageProcessorPil(**square, **options)
        plain = {"image_processor_type": "EfficientNetImageProcessor", **square, **options}
        recipe = Preprocess.from_hf(plain)
        assert (recipe.image_size, recipe.crop_from) == (42, 50)
        theirs = processor(picture, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(recipe(picture), theirs, rtol=0, atol=1e-5)
        assert Preprocess.from_hf(recipe.to_hf()) == recipe
    with pytest.raises(WeightsError, match="rescale_factor must be 2 / 255 with rescale_offset"):
        Preprocess.from_hf({"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True})
    with pytest.raises(ConfigError, match=r"crop_from must be at least image_size where resize is 'squash'.* Got 50"):
        Preprocess(image_size=42, crop_from=50)


@pytest.mark.parametrize("kind", ["blip", "chinese_clip", "owlvit", "videomae", "vit"])
def test_a_silent_recipe_is_as_in_the_library(kind):
    module = pytest.importorskip(f"transformers.models.{kind}.image_processing_pil_{kind}")
    (name,) = (name for name in vars(module) if name.endswith("ImageProcessorPil"))
    picture = Image.effect_mandelbrot((70, 60), (-2, -1, 1, 1), 20).convert("RGB")
    theirs = np.asarray(getattr(module, name)()(picture, return_tensors="np")["pixel_values"][0])
    ours = Preprocess.from_hf({"image_processor_type": name.removesuffix("Pil")})(picture)
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), rtol=0, atol=1e-5)
