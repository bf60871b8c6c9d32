import asyncio
from pathlib import Path

import pytest

from browsing import browsing
from diptych.serve import libraries as libraries_module
from diptych.serve.libraries import Libraries, read_on
from diptych.serve.refusals import RefusedError
from diptych.serve.service import Service
from serving import tiny_bundle


def test_a_zip_has_its_time_and_they_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with browsing(tmp_path) as browser:

        async def work() -> None:
            service = Service(tiny_bundle(), name="tiny", gallery=browser.gallery)
            libraries = Libraries(service, [browser])
            ids = [browser.gallery.id_of(browser.library.folder / "e.jpg"), "x" * 12]
            monkeypatch.setattr(libraries_module, "_ZIPS", 2)
            tokens = [libraries.make_zip("", ids, "") for _ in range(3)]
            with pytest.raises(RefusedError, match="no longer here"):
                libraries.zip(tokens[0])
            data = b"".join([block async for block in read_on(libraries.zip(tokens[2]))])
            assert data.startswith(b"PK")
            monkeypatch.setattr(libraries_module, "_ZIP_SECONDS", -1)
            late = libraries.make_zip("", ids, "")
            with pytest.raises(RefusedError, match="no longer here"):
                libraries.zip(late)
            service.close()

        asyncio.run(work())


def test_a_file_that_became_a_link_out_of_the_folder_is_not_given(tmp_path: Path):
    with browsing(tmp_path) as browser:

        async def work() -> None:
            service = Service(tiny_bundle(), name="tiny", gallery=browser.gallery)
            libraries = Libraries(service, [browser], can_trash=True, is_local=True)
            path = browser.library.folder / "e.jpg"
            id_ = browser.gallery.id_of(path)
            secret = tmp_path / "secret.jpg"
            path.rename(secret)
            path.symlink_to(secret)
            with pytest.raises(RefusedError, match="leads to none"):
                libraries.original(id_, "", as_file=False)
            with pytest.raises(RefusedError, match="leads to none"):
                libraries.make_zip("", [id_], "")
            assert libraries.trash("", [id_])[0] == 0
            assert secret.exists()
            service.close()

        asyncio.run(work())
