import pytest

from diptych.data.exclude import rules_of, verdict


def left_out(lines: list[str], path: str, *, is_folder: bool = False, below: str = "") -> bool:
    decided = verdict(rules_of(lines, below), path, is_folder)
    return decided is not None and not decided.is_negated


@pytest.mark.parametrize(
    ("line", "matching", "others"),
    [
        ("*.gif", ["a.gif", "deep/er/b.gif"], ["a.gifx", "gif"]),
        ("drafts", ["drafts", "a/drafts"], ["drafts2", "a/drafts/b"]),
        ("/raw", ["raw"], ["a/raw"]),
        ("2019/*.jpg", ["2019/a.jpg"], ["2019/b/a.jpg", "x/2019/a.jpg"]),
        ("**/old/*.jpg", ["old/a.jpg", "x/y/old/a.jpg"], ["old/b/a.jpg"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b/a"]),
        ("img?[0-9].png", ["imgx1.png"], ["img1.png", "imgxa.png"]),
        ("[!a]b.png", ["cb.png"], ["ab.png", "/b.png"]),
        (r"\#a+(1).png", ["#a+(1).png"], ["aa1.png"]),
        ("[ab.png", ["[ab.png"], ["a"]),
    ],
)
def test_patterns_mean_what_they_mean_to_git(line, matching, others):
    assert [path for path in matching if not left_out([line], path)] == []
    assert [path for path in others if left_out([line], path)] == []


def test_the_last_line_that_matches_decides_and_comments_say_nothing():
    assert left_out(["# *.jpg", "", "*.png\r"], "a.png")
    assert not left_out(["# *.jpg"], "a.jpg")
    assert not left_out(["*.png", "!keep.png"], "deep/keep.png")
    assert left_out(["!keep.png", "*.png"], "keep.png")


def test_a_slash_at_the_end_speaks_of_folders_alone():
    assert left_out(["raw/"], "a/raw", is_folder=True)
    assert not left_out(["raw/"], "a/raw")


def test_a_file_of_patterns_speaks_of_what_lies_below_it():
    assert left_out(["/a.png", "b/"], "x.y/a.png", below="x.y/")
    assert left_out(["b/"], "x.y/c/b", is_folder=True, below="x.y/")
    assert not left_out(["/a.png"], "a.png", below="x.y/")
    assert not left_out(["*.png"], "xzy/a.png", below="x.y/")
