import pickle

import pytest

from diptych.data.tar import TarReader, scan_tar
from diptych.errors import ImageError
from diptych.sets.pictures import Member, Pictures
from toys import pack, png


@pytest.fixture
def pictures(tmp_path):
    pack(tmp_path / "0.tar", {"a.png": png("red"), "b.png": b"no picture"})
    samples = scan_tar(tmp_path / "0.tar").samples
    (tmp_path / "c.png").write_bytes(png("blue"))
    members = [Member(TarReader(tmp_path / "0.tar"), sample.parts["png"]) for sample in samples]
    return Pictures(name="set", split="test", keys=("a", "b", "c"), _sources=(*members, tmp_path / "c.png"))


def test_files_and_members_of_shards_are_opened_alike_and_travel_by_pickle(pictures):
    for one in (pictures, pickle.loads(pickle.dumps(pictures))):
        assert [one.open(i).getpixel((0, 0)) for i in (0, 2)] == [(255, 0, 0), (0, 0, 255)]
        assert one.image_bytes(0) == png("red")
    assert len(pictures) == 3


def test_a_broken_member_is_named_by_its_key(pictures):
    with pytest.raises(ImageError, match=r"^set/test/b must be a picture"):
        pictures.open(1)
