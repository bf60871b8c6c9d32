"""The routes of the page, over a library of five pictures."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from browsing import PARIS, SHOTS, browsing, jpeg_of
from diptych.data.facts import facts_of
from diptych.serve.browse import Browser
from diptych.serve.messages import ErrorAnswer
from films import WAY, film
from serving import COLOURS, data_url, picture_file, tiny_bundle, with_client


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("routes")) as browser:
        yield browser


class Client:
    """What a page asks."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def __call__(self, path: str, /, **body: Any) -> Any:
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, path: str, /, **body: Any) -> tuple[int, str]:
        answer = await self.client.post(path, json=body)
        return answer.status_code, ErrorAnswer.model_validate_json(answer.content).error.message

    async def names(self, **body: Any) -> list[str]:
        return [one["name"] for one in (await self("/library/view", **body))["pictures"]]


def run(browser: Browser, work: Any, **options: Any) -> None:
    async def with_page(client: httpx2.AsyncClient) -> None:
        await work(Client(client))

    with_client(tiny_bundle(), with_page, browsers=[browser], **options)


def test_a_view_is_told_part_by_part(browser: Browser):
    async def work(ask: Client) -> None:
        all_ = await ask("/library/view", spread=True)
        assert (all_["total"], len(all_["pictures"]), all_["liked"], all_["found"]) == (5, 5, None, None)
        part = await ask("/library/view", start=1, count=2)
        assert part["pictures"] == all_["pictures"][1:3]
        assert part["spread"] is None
        assert sum(count for _, count in all_["spread"]["months"]) == 5
        found = await ask("/library/view", count=0, find=all_["pictures"][3]["id"])
        assert found["found"] == {"place": 3, "picture": all_["pictures"][3]}

    run(browser, work)


def test_a_question_goes_by_the_grammar_and_names_pictures_of_the_library_alone(browser: Browser):
    async def work(ask: Client) -> None:
        assert (await ask.names(query="sea/a.jpg"))[0] == "2021/sea/a.jpg"
        mixed = await ask("/library/view", query='"a red kite" - 2 * "a boat" + d.jpg', count=9)
        assert mixed["total"] == 5
        read = await ask("/library/query", query='"a red kite" - 2 * boat + d.jpg')
        assert [(term["weight"], term["text"], term["is_picture"]) for term in read["terms"]] == [
            *((1, "a red kite", False), (-2, "boat", False), (1, "d.jpg", True))
        ]
        # A file that is there, and not in the library, is words.
        [term] = (await ask("/library/query", query=__file__))["terms"]
        assert not term["is_picture"]
        assert "must end" in (await ask("/library/query", query='"a'))["fault"]
        assert (await ask("/library/query", query=" "))["terms"] == []
        status, message = await ask.refused("/library/view", query=f"image:{__file__}")
        assert (status, "must be a picture of the library" in message) == (400, True)
        assert (await ask.refused("/library/view", query='- "a boat"'))[0] == 400

    run(browser, work)


def test_more_like_a_picture_a_part_of_it_and_words_beside(browser: Browser):
    async def work(ask: Client) -> None:
        [d] = [one for one in (await ask("/library/view"))["pictures"] if one["name"] == "2022/d.jpg"]
        like = await ask("/library/view", like=d["id"])
        assert (like["total"], like["liked"]["name"]) == (4, "2022/d.jpg")
        assert "2022/d.jpg" not in [one["name"] for one in like["pictures"]]
        whole = await ask("/library/view", like=d["id"], part=[0, 0, 1, 1])
        part = await ask("/library/view", like=d["id"], part=[0.1, 0.1, 0.4, 0.4])
        words = await ask("/library/view", like=d["id"], query="a boat")
        scores = [[one["score"] for one in answer["pictures"]] for answer in (like, whole, part, words)]
        assert scores[1] == pytest.approx(scores[0], abs=0.05)  # of the copy that was drawn
        assert scores[2] != pytest.approx(scores[0], abs=0.01)
        assert scores[3] != pytest.approx(scores[0], abs=0.01)
        status, message = await ask.refused("/library/view", like=d["id"], part=[0.5, 0.5, 0.5, 0.6])
        assert (status, "must be larger" in message) == (400, True)
        assert (await ask.refused("/library/view", like="x" * 12))[0] == 404

    run(browser, work)


def test_a_picture_that_was_sent_stands_in_a_link(browser: Browser):
    async def work(ask: Client) -> None:
        image = data_url(jpeg_of(SHOTS[2]))
        token = (await ask("/library/pictures", image=image))["picture"]
        assert (await ask.names(picture=token))[0] == "2021/hill/c.jpg"
        status, message = await ask.refused("/library/view", picture="x")
        assert (status, "Drop it again" in message) == (404, True)
        assert (await ask.refused("/library/pictures", image="?"))[0] == 400

    run(browser, work)


def test_the_file_itself_comes_whole_in_parts_and_as_a_download(browser: Browser):
    async def work(ask: Client) -> None:
        [c] = [one for one in (await ask("/library/view"))["pictures"] if one["name"] == "2021/hill/c.jpg"]
        data = jpeg_of(SHOTS[2])
        whole = await ask.client.get(c["original"])
        assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, data, "image/jpeg")
        part = await ask.client.get(c["original"], headers={"range": "bytes=3-9"})
        assert (part.status_code, part.content) == (206, data[3:10])
        assert (await ask.client.get(c["original"], headers={"range": "bytes=99999-"})).status_code == 416
        download = await ask.client.get(f"{c['original']}?download=true")
        assert download.headers["content-disposition"].startswith("attachment")
        assert (await ask.client.get("/library/xxxxxxxxxxxx/original")).status_code == 404

    run(browser, work)


def test_albums_searches_and_hidden_pictures_are_kept(tmp_path: Path):
    async def work(ask: Client) -> None:
        pictures = {one["name"]: one["id"] for one in (await ask("/library/view"))["pictures"]}
        await ask("/library/shelf/search", name="boats", link="q=a+boat")
        await ask("/library/shelf/album", name="best", add=[pictures["e.jpg"], pictures["2022/d.jpg"]])
        kept = await ask("/library/shelf/hidden", hide=[pictures["2021/sea/a.jpg"]])
        assert kept["saved"] == [{"name": "boats", "link": "q=a+boat"}]
        assert kept["albums"] == [{"name": "best", "pictures": 2}]
        assert kept["hidden"] == 1
        assert set(await ask.names(album="best")) == {"e.jpg", "2022/d.jpg"}
        assert await ask.names(hidden=True) == ["2021/sea/a.jpg"]
        assert len(await ask.names()) == 4
        path = (await ask("/library/zip", album="best"))["path"]
        fetched = await ask.client.get(path)
        with zipfile.ZipFile(io.BytesIO(fetched.content)) as archive:
            assert set(archive.namelist()) == {"e.jpg", "2022/d.jpg"}
        assert (await ask("/library/paths", album="best"))["paths"] == ["e.jpg", "2022/d.jpg"]
        assert (await ask.client.get("/library/xxxx/zip")).status_code == 404
        assert (await ask("/library/shelf/album", name="best", forget=True))["albums"] == []
        assert (await ask.refused("/library/paths", album="best"))[0] == 404
        assert (await ask("/library/shelf", library="pictures"))["hidden"] == 1
        assert (await ask.refused("/library/shelf", library="others"))[0] == 404

    with browsing(tmp_path) as browser:
        run(browser, work)


def test_nothing_goes_to_the_trash_unless_the_server_was_started_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("diptych.serve.libraries.to_trash", lambda path: path.unlink())

    async def refused(ask: Client) -> None:
        [first, *_] = (await ask("/library/view"))["pictures"]
        assert (await ask.refused("/library/trash", ids=[first["id"]]))[0] == 403
        assert (await ask.refused(f"/library/{first['id']}/reveal"))[0] == 403

    async def moved(ask: Client) -> None:
        ids = [one["id"] for one in (await ask("/library/view"))["pictures"] if one["name"] == "e.jpg"]
        assert await ask("/library/trash", ids=[*ids, "x" * 12]) == {
            "moved": 1,
            "faults": ["'xxxxxxxxxxxx' must be the id of a picture that was found, and leads to none. Search again."],
        }
        assert len(await ask.names()) == 4  # also before the index is brought in step

    with browsing(tmp_path) as browser:
        run(browser, refused)
        assert (browser.library.folder / "e.jpg").exists()
        run(browser, moved, can_trash=True)
        assert not (browser.library.folder / "e.jpg").exists()


def test_whole_paths_are_told_where_only_this_machine_asks(browser: Browser, monkeypatch: pytest.MonkeyPatch):
    started: list[list[str]] = []
    monkeypatch.setattr("diptych.serve.libraries.subprocess.Popen", lambda command, **_: started.append(command))

    async def work(ask: Client) -> None:
        [first, *_] = (await ask("/library/view"))["pictures"]
        [path] = (await ask("/library/paths", ids=[first["id"]]))["paths"]
        assert Path(path) == browser.library.folder / first["name"]
        assert (await ask.client.get("/library")).json()["libraries"][0]["folder"] == str(browser.library.folder)
        assert (await ask.client.post(f"/library/{first['id']}/reveal")).json() == {"done": True}

    run(browser, work, is_local=True)
    assert len(started) == 1

    async def from_elsewhere(ask: Client) -> None:
        assert str(browser.library.folder) not in (await ask.client.get("/library")).text

    run(browser, from_elsewhere)


def test_places_are_told_for_a_map(browser: Browser):
    async def work(ask: Client) -> None:
        spots = (await ask("/library/spots", folder="2021"))["spots"]
        assert sorted((round(a, 2), round(b, 2), n) for a, b, n, _ in spots) == [(1.35, 103.8, 1), (48.86, 2.35, 1)]
        for *_, path in spots:
            assert (await ask.client.get(path)).content.startswith(b"\xff\xd8")

    run(browser, work)


def test_where_a_key_is_asked_for_addresses_of_pictures_have_a_ticket(browser: Browser):
    key = "a-long-enough-key"

    async def work(ask: Client) -> None:
        assert (await ask.client.post("/library/view", json={})).status_code == 401
        ask.client.headers["authorization"] = f"Bearer {key}"
        [first, *_] = (await ask("/library/view"))["pictures"]
        zipped = (await ask("/library/zip", ids=[first["id"]]))["path"]
        del ask.client.headers["authorization"]
        for path in (first["thumbnail"], first["picture"], first["original"], zipped):
            assert key not in path
            assert (await ask.client.get(path)).status_code == 200
            assert (await ask.client.get(path.partition("?")[0])).status_code == 401
        assert (await ask.client.get(first["picture"].replace(first["id"], "x" * 12))).status_code == 401

    run(browser, work, api_key=key)


def test_groups_that_look_the_same_come_when_all_pairs_were_compared(browser: Browser):
    async def work(ask: Client) -> None:
        while not (answer := await ask("/library/alike", threshold=0.5))["ready"]:
            pass
        assert answer["total"] >= 1
        assert sum(map(len, answer["groups"])) <= 5
        assert (await ask.refused("/library/alike", threshold=7))[0] == 400

    run(browser, work)


def test_two_libraries_have_views_of_their_own(browser: Browser, tmp_path: Path):
    with browsing(tmp_path, SHOTS[:2]) as other:
        other.name = "others"

        async def work(client: httpx2.AsyncClient) -> None:
            ask = Client(client)
            listed = (await client.get("/library")).json()["libraries"]
            assert [(one["name"], one["pictures"]) for one in listed] == [("pictures", 5), ("others", 2)]
            seen = (await ask("/library/view", library="others"))["pictures"]
            assert {one["name"] for one in seen} == {"2021/sea/a.jpg", "2021/sea/b.jpg"}
            assert (await client.get(seen[0]["thumbnail"])).status_code == 200
            assert (await client.get("/health")).json()["library"] == 7

        with_client(tiny_bundle(), work, browsers=[browser, other])


def test_without_a_library_there_is_nothing_to_see():
    async def work(client: httpx2.AsyncClient) -> None:
        assert (await client.get("/library")).json()["libraries"] == []
        assert (await Client(client).refused("/library/view"))[0] == 404

    with_client(tiny_bundle(), work)


def test_words_that_the_model_does_not_know_are_named(tmp_path: Path):
    from serving import latin_bundle

    async def work(client: httpx2.AsyncClient) -> None:
        ask = Client(client)
        [term] = (await ask("/library/query", query="cat 犬"))["terms"]
        assert term["unknown"] == ["犬"]

    with browsing(tmp_path) as browser:
        with_client(latin_bundle(), work, browsers=[browser])


def test_a_red_picture_is_found_by_a_red_one(browser: Browser):
    async def work(ask: Client) -> None:
        red = data_url(picture_file(COLOURS["red"]))  # pyright: ignore[reportArgumentType]
        token = (await ask("/library/pictures", image=red))["picture"]
        assert len(await ask.names(picture=token, kind="picture")) == 5
        assert await ask.names(picture=token, kind="video") == []

    run(browser, work)


def test_nobody_is_told_where_pictures_were_taken(tmp_path: Path):
    with browsing(tmp_path, tells_places=False) as browser:
        folder = browser.library.folder
        jpeg = Image.open(folder / "2021/sea/a.jpg")
        jpeg.save(folder / "placed.webp", exif=jpeg.getexif())
        (folder / "plain.png").write_bytes(picture_file())
        (tmp_path / "way.srt").write_text(WAY)
        film(folder / "walk.mkv", subtitles=tmp_path / "way.srt")
        film(folder / "still.mkv")
        browser.library.update()  # pyright: ignore[reportAttributeAccessIssue]

        async def work(ask: Client) -> None:
            view = await ask("/library/view", spread=True)
            one = {picture["name"]: picture for picture in view["pictures"]}
            assert {(picture["place"], picture["country"]) for picture in one.values()} == {(None, None)}
            assert (view["spread"]["countries"], view["spread"]["placed"]) == ([], 0)
            assert await ask.names(area=[-90, -180, 90, 180]) == []
            assert (await ask("/library/spots"))["spots"] == []
            near = {"text": "a kite", "filters": {"near": [*PARIS, 50]}}
            assert (await ask.refused("/search", **near))[0] == 403
            # A JPEG goes out without its place, whole, in part and in a zip; what cannot be blanked stays.
            whole = (folder / "2021/sea/a.jpg").read_bytes()
            sent = (await ask.client.get(one["2021/sea/a.jpg"]["original"])).content
            assert facts_of(Image.open(io.BytesIO(whole))).place is not None
            assert facts_of(Image.open(io.BytesIO(sent))).place is None
            assert len(sent) == len(whole)
            part = await ask.client.get(one["2021/sea/a.jpg"]["original"], headers={"range": "bytes=10-99"})
            assert (part.status_code, part.content) == (206, sent[10:100])
            stays = await ask.client.get(one["placed.webp"]["original"])
            assert (stays.status_code, "is not taken out" in stays.text) == (403, True)
            assert (await ask.client.get(one["plain.png"]["original"])).content == picture_file()
            assert (await ask.client.get(one["walk.mkv"]["original"])).status_code == 403
            assert (await ask.client.get(one["still.mkv"]["original"])).content == (folder / "still.mkv").read_bytes()
            path = (await ask("/library/zip", ids=[picture["id"] for picture in one.values()]))["path"]
            with zipfile.ZipFile(io.BytesIO((await ask.client.get(path)).content)) as archive:
                assert archive.read("2021/sea/a.jpg") == sent
                assert set(archive.namelist()) == {*one, "not-read.txt"} - {"placed.webp", "walk.mkv"}
                assert b"placed.webp: placed.webp may tell where it was taken" in archive.read("not-read.txt")

        run(browser, work, strip_location=True)


def test_a_zip_of_pictures_of_which_one_went_has_the_others(tmp_path: Path):
    with browsing(tmp_path) as browser:

        async def work(ask: Client) -> None:
            pictures = (await ask("/library/view"))["pictures"]
            (browser.library.folder / pictures[0]["name"]).unlink()
            path = (await ask("/library/zip", ids=[picture["id"] for picture in pictures]))["path"]
            with zipfile.ZipFile(io.BytesIO((await ask.client.get(path)).content)) as archive:
                assert set(archive.namelist()) == {*(one["name"] for one in pictures[1:]), "not-read.txt"}
                assert archive.read("not-read.txt").startswith(pictures[0]["name"].encode())

        run(browser, work)
