from pathlib import Path

from diptych.sets.digest import digest, digest_of_rows
from diptych.sets.pictures import Pictures


def make(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_each_byte_and_each_name_counts(tmp_path: Path):
    folder = make(tmp_path / "a", "test/cat/1.png", "test/dog/2.png")
    first = digest(folder, "test")
    (folder / "test/cat/1.png").write_bytes(b"y")  # as many bytes as before
    changed = digest(folder, "test")
    (folder / "test/cat/1.png").rename(folder / "test/cat/3.png")
    assert len({first, changed, digest(folder, "test")}) == 3


def test_where_the_folder_lies_and_what_is_beside_the_split_do_not_count(tmp_path: Path):
    plain = digest(make(tmp_path / "a", "test/cat/1.png"), "test")
    other = make(
        tmp_path / "b", "test/cat/1.png", "test/cat/.DS_Store", "test/.cache/2.png", "train/cat/1.png", "README"
    )
    assert digest(other, "test") == plain


def test_without_a_split_the_folder_is_the_split(tmp_path: Path):
    folder = make(tmp_path / "a", "cat/1.png")
    assert digest(folder, "test") == digest(make(tmp_path / "b", "test/cat/1.png"), "test")


def test_of_shards_what_lies_beside_them_does_not_count(tmp_path: Path):
    plain = digest(make(tmp_path / "a", "test/0.tar"), "test")
    assert digest(make(tmp_path / "b", "test/0.tar", "test/nshards.txt"), "test") == plain
    assert digest(make(tmp_path / "c", "test/0.tar", "test/1.tar"), "test") != plain


def test_of_rows_each_picture_each_key_and_each_word_counts_and_the_place_does_not(tmp_path: Path):
    def found(name: str, content: bytes = b"x", key: str = "1.png", caption: str = "a cup") -> str:
        path = make(tmp_path / name, "1.png", content=content) / "1.png"
        pictures = Pictures(name="set", split="test", keys=(key,), _sources=(path,))
        return digest_of_rows(pictures, [caption], ["coarse"])

    assert found("a") == found("b")
    others = [found("c", content=b"y"), found("d", key="2.png"), found("e", caption="a mug")]
    absent = Pictures(name="set", split="test", keys=("1.png",), _sources=(tmp_path / "none.png",))
    assert len({found("a"), *others, digest_of_rows(absent, ["a cup"], ["coarse"])}) == 5
