import os
from pathlib import Path

import numpy as np
import pytest

from diptych.serve import gallery as gallery_module
from diptych.serve.gallery import Gallery
from diptych.serve.refusals import RefusedError
from diptych.weights.bundle import Bundle
from serving import COLOURS, PlainLibrary, picture_file, tiny_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return tiny_bundle()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "deeper").mkdir(parents=True)
    for name in ("red", "green", "deeper/blue"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(picture_file(COLOURS[name.split("/")[-1]]))  # pyright: ignore[reportArgumentType]
    return tmp_path / "pictures"


def everything(gallery: Gallery, bundle: Bundle) -> dict[str, dict]:
    found = gallery.search(bundle.encode_images([Path(gallery._library.folder) / "red.png"])[0], 9, None)
    return {one["name"]: one for one in found}


def test_a_client_sees_names_below_the_folder_and_ids_that_stay(bundle: Bundle, folder: Path):
    gallery = Gallery(PlainLibrary(folder, bundle))
    found = everything(gallery, bundle)
    assert next(iter(found)) == "red.png"
    assert found.keys() == {"red.png", "green.png", "deeper/blue.png"}
    assert str(folder) not in str(found)
    assert everything(gallery, bundle) == found
    assert len({one["id"] for one in found.values()}) == 3


def test_more_like_one_leaves_that_one_out(bundle: Bundle, folder: Path):
    gallery = Gallery(PlainLibrary(folder, bundle))
    red = everything(gallery, bundle)["red.png"]["id"]
    assert {one["name"] for one in gallery.like(red, 9, None)} == {"green.png", "deeper/blue.png"}


@pytest.mark.parametrize("id_", ["", "../red.png", "/etc/passwd", "red.png", "0", "%2e%2e", "x" * 10_000])
def test_an_id_that_was_not_given_out_leads_nowhere(bundle: Bundle, folder: Path, id_: str):
    gallery = Gallery(PlainLibrary(folder, bundle))
    everything(gallery, bundle)
    for ask in (lambda: gallery.draw(id_, 100), lambda: gallery.like(id_, 3, None)):
        with pytest.raises(RefusedError, match="must be the id of a picture that was found") as refused:
            ask()
        assert refused.value.status == 404
        assert len(str(refused.value)) < 200


def test_a_file_that_became_a_link_out_of_the_folder_is_not_shown(bundle: Bundle, folder: Path):
    gallery = Gallery(PlainLibrary(folder, bundle))
    found = everything(gallery, bundle)
    secret = folder.parent / "secret.png"
    (folder / "red.png").rename(secret)
    (folder / "red.png").symlink_to(secret)
    (folder / "green.png").unlink()
    for name in ("red.png", "green.png"):
        with pytest.raises(RefusedError, match="leads to none"):
            gallery.draw(found[name]["id"], 100)


def test_drawn_pictures_are_kept_up_to_a_limit(bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch):
    library = PlainLibrary(folder, bundle)
    gallery = Gallery(library)
    ids = [one["id"] for one in everything(gallery, bundle).values()]
    first = gallery.draw(ids[0], 16)
    monkeypatch.setattr(library, "thumbnail", lambda path, side: b"x" * 600)
    assert gallery.draw(ids[0], 16) == first  # from memory
    monkeypatch.setattr(gallery_module, "_CACHE_BYTES", 1000)
    gallery.draw(ids[1], 16)
    gallery.draw(ids[2], 16)
    assert gallery._drawn_bytes == sum(len(one.jpeg) for one in gallery._drawn.values()) <= 1000
    assert gallery.draw(ids[0], 16) == b"x" * 600  # the oldest had to go


def test_a_picture_that_is_deleted_or_changed_is_not_shown_from_memory(bundle: Bundle, folder: Path):
    gallery = Gallery(PlainLibrary(folder, bundle))
    red = everything(gallery, bundle)["red.png"]["id"]
    before = gallery.draw(red, 16)
    (folder / "red.png").write_bytes(picture_file(COLOURS["blue"], size=(41, 30)))  # pyright: ignore[reportArgumentType]
    assert gallery.draw(red, 16) != before
    (folder / "red.png").unlink()
    with pytest.raises(RefusedError, match="leads to none"):
        gallery.draw(red, 16)
    assert (len(gallery._drawn), gallery._drawn_bytes) == (0, 0)


def test_a_link_out_of_the_folder_is_not_named(bundle: Bundle, folder: Path):
    secret = folder.parent / "secret.png"
    secret.write_bytes(picture_file(COLOURS["red"]))  # pyright: ignore[reportArgumentType]
    (folder / "link.png").symlink_to(secret)
    (folder / "inner.png").symlink_to(folder / "green.png")
    gallery = Gallery(PlainLibrary(folder, bundle))
    found = everything(gallery, bundle)
    assert found.keys() == {"red.png", "green.png", "deeper/blue.png", "inner.png"}
    assert {one["name"] for one in gallery.like(found["red.png"]["id"], 9, None)} == found.keys() - {"red.png"}


def test_a_pipe_in_the_place_of_a_picture_is_not_opened(bundle: Bundle, folder: Path):
    gallery = Gallery(PlainLibrary(folder, bundle))
    red = everything(gallery, bundle)["red.png"]["id"]
    (folder / "red.png").unlink()
    os.mkfifo(folder / "red.png")  # who opens it to read waits for one who writes
    with pytest.raises(RefusedError, match="leads to none"):
        gallery.draw(red, 16)


def test_ids_are_kept_up_to_a_limit(bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gallery_module, "_MOST_IDS", 2)
    gallery = Gallery(PlainLibrary(folder, bundle))
    found = gallery.search(np.zeros(bundle.model.config.embed_dim, np.float32), 9, None)
    assert len(gallery._paths) == len(gallery._ids) == 2
    assert gallery.draw(found[2]["id"], 16)
    with pytest.raises(RefusedError):
        gallery.draw(found[0]["id"], 16)
