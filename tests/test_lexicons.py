import json

import numpy as np
import pytest
import scipy.io

from diptych.errors import DataError
from diptych.sets.lexicons import read_words
from toys import png


def test_lines_give_a_word_and_its_lexicon_in_which_each_word_is_once(tmp_path):
    rows = [{"image": "a/1.png", "word": "OPEN", "lexicon": ["SHUT", "OPEN", "SHUT"]}]
    (tmp_path / "words.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png("red"))
    pictures = read_words(tmp_path)
    assert (pictures.words, pictures.lexicons) == (("OPEN",), (("OPEN", "SHUT"),))
    assert pictures.open(0).size == (4, 4)
    (tmp_path / "words.jsonl").write_text('{"image": "a.png"}')
    with pytest.raises(DataError, match=r"words.jsonl, line 1, must give image, word and lexicon. .*'word'"):
        read_words(tmp_path)


def test_the_matlab_table_of_iiit5k_is_read(tmp_path):
    kinds = [("ImgName", "O"), ("GroundTruth", "O"), ("smallLexi", "O"), ("mediumLexi", "O")]
    words = np.array(["OPEN", "SHUT", "DOOR"], dtype=object)
    rows = [("test/1.png", "OPEN", words[:2], words), ("test/2.png", "NEWS", words[:2], words)]
    scipy.io.savemat(tmp_path / "testdata.mat", {"testdata": np.array(rows, dtype=kinds)})
    pictures = read_words(tmp_path)
    assert pictures.keys == ("test/1.png", "test/2.png")
    assert pictures.lexicons == (("OPEN", "SHUT", "DOOR"), ("NEWS", "OPEN", "SHUT", "DOOR"))
    scipy.io.savemat(tmp_path / "testdata.mat", {"other": 1})
    with pytest.raises(DataError, match=r"must hold IIIT5K's table testdata"):
        read_words(tmp_path)
    with pytest.raises(DataError, match=r"testdata.mat of IIIT5K, or words.jsonl"):
        read_words(tmp_path / "none")
