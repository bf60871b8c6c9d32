import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diptych.data.tar import TarReader, scan_tar
from diptych.errors import ShardError

MEMBERS = [("a/000.jpg", b"picture 0"), ("a/000.cls", b"7"), ("a/001.jpg", b"x" * 1300), ("a/001.seg.PNG", b"mask")]


def pack(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz"])
def test_members_group_by_the_path_up_to_the_first_dot_and_read_back(tmp_path, name):
    index, reader = scan_tar(pack(tmp_path / name, MEMBERS)), TarReader(tmp_path / name)
    read = {s.key: {ending: reader.read(*span) for ending, span in s.parts.items()} for s in index.samples}
    assert read == {
        "a/000": {"jpg": b"picture 0", "cls": b"7"},
        "a/001": {"jpg": b"x" * 1300, "seg.png": b"mask"},
    }
    assert list(read) == ["a/000", "a/001"]
    assert index.samples[0].parts["jpg"] == (512, 9)  # one header block comes before


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_are_read(tmp_path, format):
    key = "täglich/" + "n" * 300
    index = scan_tar(pack(tmp_path / "0.tar", [(f"{key}.jpg", b"picture")], format))
    assert [sample.key for sample in index.samples] == [key]
    assert TarReader(tmp_path / "0.tar").read(*index.samples[0].parts["jpg"]) == b"picture"


def test_folders_links_hidden_files_and_files_without_ending_belong_to_no_sample(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind in [
            (".", tarfile.DIRTYPE),
            ("./0.jpg", tarfile.REGTYPE),
            ("./._0.jpg", tarfile.REGTYPE),
            ("./README", tarfile.REGTYPE),
            ("./1.jpg", tarfile.SYMTYPE),
            ("./v1.0/2.jpg", tarfile.REGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    assert [(s.key, list(s.parts)) for s in scan_tar(tmp_path / "0.tar").samples] == [
        ("0", ["jpg"]),
        ("v1.0/2", ["jpg"]),
    ]


def test_a_tar_without_members_has_no_samples(tmp_path):
    assert scan_tar(pack(tmp_path / "0.tar", [])).samples == ()


def test_a_part_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(ShardError, match=r"each part of a sample must come once\. 0\.jpg comes twice"):
        scan_tar(pack(tmp_path / "0.tar", [("0.jpg", b""), ("0.JPG", b"")]))


def test_a_sample_in_two_places_is_refused(tmp_path):
    with pytest.raises(ShardError, match=r"must lie next to each other\. '0' comes in two places"):
        scan_tar(pack(tmp_path / "0.tar", [("0.jpg", b""), ("1.jpg", b""), ("0.txt", b"")]))


# Layout: 000.jpg at 0, 000.cls at 1024, 001.jpg at 2048 (padded to 4096), 001.seg at 4096, end at 5120.
@pytest.mark.parametrize(
    ("size", "whole"),
    [
        (1600, 0),  # inside the content of 000.cls
        (2048, 0),  # between two members: nothing but the missing end mark tells
        (2300, 0),  # inside a header: tarfile itself would call this a good end
        (3000, 1),  # inside the content of 001.jpg
        (5120, 1),
    ],
)
def test_a_cut_tar_says_how_many_whole_samples_come_before(tmp_path, size, whole):
    path = pack(tmp_path / "0.tar", MEMBERS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ShardError, match=rf"cut short or damaged \(.*\): {whole} whole samples come before\. Fetch it"):
        scan_tar(path)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = pack(tmp_path / "0.tar", MEMBERS)
    content = bytearray(path.read_bytes())
    content[2048:2060] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(ShardError, match="no header and no end mark at byte 2,048"):
        scan_tar(path)


def test_two_tars_joined_by_cat_are_refused_since_the_second_would_be_lost(tmp_path):
    path = pack(tmp_path / "0.tar", MEMBERS)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ShardError, match="more data after the end mark"):
        scan_tar(path)


def test_a_negative_size_does_not_make_the_scan_walk_in_circles(tmp_path):
    path = pack(tmp_path / "0.tar", MEMBERS)
    content = bytearray(path.read_bytes())
    header = content[1024:1536]
    header[124:136] = b"\xff" * 10 + (-512 & 0xFFFF).to_bytes(2, "big")  # base 256: the next header is this one
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[1024:1536] = header
    path.write_bytes(content)
    with pytest.raises(ShardError, match="impossible size"):
        scan_tar(path)


def test_what_is_no_tar_is_said_to_be_none(tmp_path):
    (tmp_path / "page.tar").write_bytes(b"<html>" * 200)
    (tmp_path / "empty.tar").write_bytes(b"")
    for name in ("page.tar", "empty.tar"):
        with pytest.raises(ShardError, match="must be a tar file, and is not a readable one"):
            scan_tar(tmp_path / name)
    with pytest.raises(ShardError, match=r"absent\.tar cannot be opened: No such file"):
        scan_tar(tmp_path / "absent.tar")


def test_a_cut_gzip_is_named(tmp_path):
    path = pack(tmp_path / "0.tar.gz", MEMBERS)
    path.write_bytes(path.read_bytes()[:-20])
    for read in (scan_tar, lambda path: TarReader(path).read(0, 1)):
        with pytest.raises(ShardError, match=r"0\.tar\.gz is cut short or damaged"):
            read(path)
    path.write_bytes(gzip.compress(b"no tar" * 200))
    with pytest.raises(ShardError, match="must be a tar file"):
        scan_tar(path)


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz"])
def test_a_reader_serves_many_threads_and_travels_by_pickle(tmp_path, name):
    members = [(f"{number:03}.jpg", f"picture {number}".encode() * 50) for number in range(40)]
    index = scan_tar(pack(tmp_path / name, members))
    reader = TarReader(tmp_path / name)
    assert reader.read(*index.samples[0].parts["jpg"]) == members[0][1]
    for used in (reader, pickle.loads(pickle.dumps(reader))):
        with ThreadPoolExecutor(8) as pool:
            contents = list(pool.map(lambda s, used=used: used.read(*s.parts["jpg"]), index.samples * 5))
        assert contents == [content for _, content in members] * 5


@pytest.mark.parametrize("name", ["0.tar", "0.tar.gz"])
def test_a_span_beyond_the_end_is_an_error_and_not_a_short_answer(tmp_path, name):
    with pytest.raises(ShardError, match="shorter than when it was indexed"):
        TarReader(pack(tmp_path / name, MEMBERS)).read(10_000, 5_000)


def test_a_disk_that_fails_while_reading_is_one_sentence(tmp_path, monkeypatch):
    reader = TarReader(pack(tmp_path / "0.tar", MEMBERS))
    span = reader.index().samples[0].parts["jpg"]

    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(ShardError, match=r"0\.tar cannot be read: Input/output error") as caught:
        reader.read(*span)
    assert caught.value.cause == "0.tar cannot be read"


def keys(path: Path) -> dict[str, list[str]]:
    return {sample.key: list(sample.parts) for sample in scan_tar(path).samples}


def test_a_key_goes_up_to_the_last_dot_where_that_makes_the_pairs(tmp_path):
    members = [(f"photo.{n:02d}.{ending}", b"x") for n in range(40) for ending in ("jpg", "txt")]
    path = pack(tmp_path / "0.tar", members)
    assert keys(path) == {f"photo.{n:02d}": ["jpg", "txt"] for n in range(40)}
    assert scan_tar(path).last_dot
    last_shard = pack(tmp_path / "1.tar", members[:2])  # one sample alone reads as its neighbours do
    assert keys(last_shard) == {"photo.00": ["jpg", "txt"]}


@pytest.mark.parametrize(
    "parts",
    [
        ["jpg", "txt", "seg.png"],
        ["image.png", "caption.txt"],
        ["image.png", "image.json", "caption.txt"],
        ["left.jpg", "right.jpg", "txt"],
        ["png", "txt", "teacher-image.npy"],
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_key_goes_up_to_the_first_dot_where_endings_have_several(tmp_path, parts, count):
    path = pack(tmp_path / "0.tar", [(f"{n:03d}.{part}", b"x") for n in range(count) for part in parts])
    assert keys(path) == {f"{n:03d}": parts for n in range(count)}
    assert not scan_tar(path).last_dot


def test_parts_apart_are_refused_by_the_rule_of_the_first_dot(tmp_path):
    path = pack(tmp_path / "0.tar", [(name, b"") for name in ("0.a.jpg", "1.jpg", "0.b.jpg")])
    with pytest.raises(ShardError, match="'0' comes in two places"):
        scan_tar(path)


def test_members_of_no_sample_are_counted_by_reason(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        kinds = [("d", tarfile.DIRTYPE), ("0.jpg", tarfile.REGTYPE), (".h.jpg", tarfile.REGTYPE), ("README", b"0")]
        for name, kind in [*kinds, ("1.jpg", tarfile.SYMTYPE), ("2.jpg", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info)
    assert scan_tar(tmp_path / "0.tar").outside == {"hidden files": 1, "files without an ending": 1, "links": 2}


@pytest.mark.parametrize(("name", "module"), [("0.tgz", gzip), ("0.tar.bz2", bz2), ("0.tar.xz", lzma)])
def test_compressed_tars_are_told_by_their_bytes(tmp_path, name, module):
    plain = pack(tmp_path / "plain.tar", MEMBERS).read_bytes()
    (tmp_path / name).write_bytes(module.compress(plain))
    assert TarReader(tmp_path / name).read(*scan_tar(tmp_path / name).samples[0].parts["jpg"]) == b"picture 0"
    (tmp_path / name).write_bytes(module.compress(plain)[:-12])
    with pytest.raises(ShardError, match="is cut short or damaged"):
        scan_tar(tmp_path / name)
    content = bytearray(module.compress(plain))
    content[len(content) // 2] ^= 16
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ShardError, match="is cut short or damaged"):
        scan_tar(tmp_path / name)


def test_a_tar_made_small_by_zstd_names_the_cure(tmp_path):
    (tmp_path / "0.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(ShardError, match=r"and is zstd's\. Unpack it: zstd -d 0\.tar\.zst"):
        scan_tar(tmp_path / "0.tar.zst")
