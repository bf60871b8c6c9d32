import pytest

from diptych.data.texts import decode_text, read_text, text_lines
from diptych.errors import DataError, TextError


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_text_is_the_same_in_every_encoding_that_its_mark_tells(encoding):
    assert decode_text("ein Café 🐕\n".encode(encoding)) == "ein Café 🐕\n"


@pytest.mark.parametrize("content", ["café".encode("latin-1"), "cat".encode("utf-16-le"), b"\xff\xfea"])
def test_what_is_no_text_is_not_guessed_at(content):
    with pytest.raises(TextError, match="not UTF-8"):
        decode_text(content)


@pytest.mark.parametrize("letter", list("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
def test_only_a_line_feed_ends_a_line(letter):
    assert text_lines(f"a dog{letter}runs\r\na cat\n\n") == [f"a dog{letter}runs", "a cat"]


def test_carriage_returns_end_lines_where_there_is_no_line_feed():
    assert text_lines("a dog\ra cat\r") == ["a dog", "a cat"]
    assert text_lines("a dog\rruns\na cat") == ["a dog\rruns", "a cat"]


def test_a_file_that_is_no_text_is_one_sentence(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"a\.txt must be UTF-8 text, and is not UTF-8 .*\. Save it as UTF-8\.$"):
        read_text(tmp_path / "a.txt")
    with pytest.raises(DataError, match=r"b\.txt cannot be read: No such file"):
        read_text(tmp_path / "b.txt")
