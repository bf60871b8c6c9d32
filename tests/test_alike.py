import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from browsing import Shot, browsing, jpeg_of
from diptych.search.results import Results
from diptych.serve.alike import Alike, has_sidecar, sharpness
from diptych.serve.refusals import RefusedError


def groups(alike: Alike, threshold: float) -> list[Results]:
    end = time.monotonic() + 60
    while (found := alike.groups(threshold)) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    return list(found)


def test_copies_are_a_group_with_the_best_first(tmp_path: Path):
    small, large = Shot("small.jpg", "blue", size=(40, 30)), Shot("large.jpg", "blue", size=(400, 300))
    with browsing(tmp_path, (small, large, Shot("other.jpg", "yellow"))) as browser:
        library = browser.library
        (library.folder / "copy.jpg").write_bytes(jpeg_of(small))
        (library.folder / "copy.jpg.xmp").write_text("worked on")
        library.update()  # pyright: ignore[reportAttributeAccessIssue]
        alike = Alike(browser)
        [told] = [alike.told(group) for group in groups(alike, 0.999) if len(group) > 1][:1]
        names = [facts["name"] for facts in told]
        # The same pixels as the small one, and a sidecar.
        assert names.index("copy.jpg") < names.index("small.jpg")
        if "large.jpg" in names:
            assert names[0] == "large.jpg"
        assert {facts["name"]: facts["has_sidecar"] for facts in told}["copy.jpg"]
        browser.shelf.change_hidden(hide={"copy.jpg": ""})
        assert "copy.jpg" not in [facts["name"] for facts in alike.told(groups(alike, 0.999)[0])]


def test_a_threshold_that_is_none_is_refused(tmp_path: Path):
    with browsing(tmp_path) as browser, pytest.raises(RefusedError, match="threshold must be above 0"):
        groups(Alike(browser), 1.5)


def test_a_blurred_picture_is_less_sharp():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    assert sharpness(noise) > 2 * sharpness(noise.filter(ImageFilter.GaussianBlur(2)))
    assert sharpness(Image.new("RGB", (50, 50), "red")) == sharpness(Image.new("RGB", (2, 2))) == 0


def test_sidecars_lie_beside_a_picture(tmp_path: Path):
    (tmp_path / "a.xmp").touch()
    (tmp_path / "b.jpg.XMP").touch()
    assert [has_sidecar(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")] == [True, True, False]


def test_the_same_question_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with browsing(tmp_path) as browser:
        asked: list[float] = []
        monkeypatch.setattr(browser.library, "duplicates", lambda threshold: asked.append(threshold) or [])
        alike = Alike(browser)
        for threshold in (0.9, 0.9, 0.95):
            assert groups(alike, threshold) == []
        assert asked == [0.9, 0.95]
