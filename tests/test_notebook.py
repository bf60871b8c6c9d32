"""What a notebook shows: nothing breaks out of a name, nothing is loaded from elsewhere, a bar where there is one."""

import html.parser
import sys
import types

import pytest
from PIL import Image

from diptych.data import notebook
from diptych.data.notebook import bars, figure, grid, jpeg_of, progress, text
from diptych.errors import DataError

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)> \ud800\udcff\n&'


class Seen(html.parser.HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.text += data


def seen(page: str) -> Seen:
    page.encode()  # a notebook is a UTF-8 file
    parser = Seen()
    parser.feed(page)
    return parser


def test_hostile_names_stand_as_text():
    jpeg = jpeg_of(Image.new("RGB", (40, 20)), 10)
    page = grid([figure(lambda: jpeg, HOSTILE, title=HOSTILE, side=10, below=bars([(HOSTILE, 0.5)]))], title=HOSTILE)
    found = seen(page)
    assert {tag for tag, _ in found.tags} == {"div", "p", "figure", "img", "figcaption"}
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    sources = [attributes["src"] for _, attributes in found.tags if "src" in attributes]
    assert len(sources) == 1
    assert str(sources[0]).startswith("data:image/jpeg;base64,")
    assert found.text.count("<script>alert(1)</script>") == 3
    assert text("\udcff") == "\\udcff"


def test_pictures_are_small_and_the_own_stays_as_it_is():
    picture = Image.new("RGB", (4000, 1000))
    assert len(jpeg_of(picture, 200)) < 5000
    assert picture.size == (4000, 1000)


def test_what_is_gone_leaves_a_box_and_what_is_left_out_is_counted():
    def gone() -> bytes:
        raise DataError("gone")

    page = grid([figure(gone, "a", title="a", side=10)], left_out=1234)
    assert "no picture" in page
    assert "1,234 more are not shown." in page
    assert "<img" not in page


def test_bars_are_as_long_as_their_share_and_no_longer_than_all():
    page = bars([("a", 0.25), ("b", 1.5), ("c", -1.0)])
    assert [part.split(",")[0] for part in page.split("#4a7fd4 ")[1:]] == ["25.0%", "100.0%", "0.0%"]


@pytest.fixture
def shell(monkeypatch):
    """IPython as a notebook has it: what is shown, and what it changed to."""
    pages: list[str] = []
    made = types.ModuleType("IPython")
    made.get_ipython = lambda: types.SimpleNamespace(kernel=1)
    made.display = types.ModuleType("IPython.display")
    made.display.HTML = str
    handle = types.SimpleNamespace(update=pages.append)
    made.display.display = lambda page, display_id: pages.append(f"new: {page}") or handle
    monkeypatch.setitem(sys.modules, "IPython", made)
    monkeypatch.setitem(sys.modules, "IPython.display", made.display)
    return made, pages


def test_long_work_has_one_bar_that_grows_in_steps_of_a_percent(shell):
    _, pages = shell
    with progress("<b>indexing") as advance:
        for done in range(1, 100_001):
            advance(done, 100_000)
    assert len(pages) == 101
    assert pages[0].startswith("new: <div>&lt;b&gt;indexing <progress")
    assert pages[-1].endswith("100,000 of 100,000</div>")
    assert sum(page.startswith("new: ") for page in pages) == 1


def test_nothing_is_shown_where_there_is_no_notebook(shell, monkeypatch):
    made, pages = shell
    for get in (lambda: None, lambda: types.SimpleNamespace()):  # plain Python that imported it, IPython in a terminal
        made.get_ipython = get
        with progress("work") as advance:
            advance(1, 2)
    monkeypatch.delitem(sys.modules, "IPython")
    assert notebook._display() is None
    assert pages == []


def test_a_library_has_its_bar_and_whoever_asks_for_progress_has_none(shell, tmp_path, tiny_bundle):
    from diptych.search.library import Library

    _, pages = shell
    for number in range(3):
        Image.new("RGB", (30, 20), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    with Library.open(tmp_path, tiny_bundle, index=tmp_path.parent / "index") as library:
        library.update(on_progress=lambda _: None)
        assert pages == []
        (tmp_path / "0.png").unlink()
        Image.new("RGB", (30, 20), "white").save(tmp_path / "new.png")
        library.update()
    assert "indexing" in pages[0]
