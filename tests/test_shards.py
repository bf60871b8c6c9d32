import dataclasses
import gzip
import io
import json
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import diptych.pairs.shards as module
from diptych.data.tar import TarReader
from diptych.errors import ShardError
from diptych.files import sha256
from diptych.pairs.samples import Members
from diptych.pairs.shards import MANIFEST, ShardSet, ShardWriter, write_manifest

SAMPLES = {f"set/{n:02d}": {"png": bytes([n]) * (n + 1), "txt": f"thing {n}".encode()} for n in range(7)}


def write(folder: Path, samples=SAMPLES, **options) -> Path:
    with ShardWriter(folder, **{"samples_per_shard": 3, **options}) as writer:
        for key, parts in samples.items():
            writer.add(key, parts)
    return folder


def read(path: Path) -> dict[str, dict[str, bytes]]:
    shards = ShardSet(path)
    return {shards[i].key: dict(shards[i].parts) for i in range(len(shards))}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("compress", [False, True])
def test_samples_come_back_in_their_order(tmp_path, compress):
    folder = write(tmp_path / "set", compress=compress)
    ending = ".tar.gz" if compress else ".tar"
    assert sorted(files(folder)) == [MANIFEST, *(f"shard-{n:05d}{ending}" for n in range(3))]  # 3 + 3 + 1 samples
    assert read(folder) == SAMPLES
    assert list(read(folder)) == list(SAMPLES)


@pytest.mark.parametrize("compress", [False, True])
def test_same_samples_give_the_same_bytes(tmp_path, compress):
    assert files(write(tmp_path / "a", compress=compress)) == files(write(tmp_path / "b", compress=compress))


def test_a_shard_is_a_plain_tar_that_names_no_time_and_no_owner(tmp_path):
    with tarfile.open(write(tmp_path / "set") / "shard-00001.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [f"set/{n:02d}.{e}" for n in (3, 4, 5) for e in ("png", "txt")]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


def test_the_manifest_counts_and_comes_last(tmp_path):
    manifest = json.loads((write(tmp_path / "set") / MANIFEST).read_text())
    assert [shard["samples"] for shard in manifest["shards"]] == [3, 3, 1]
    assert manifest["samples"] == 7

    def fail_halfway() -> None:
        with ShardWriter(tmp_path / "cut", samples_per_shard=1) as writer:
            writer.add("a", {"txt": b"a"})
            raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="source"):
        fail_halfway()
    assert list(files(tmp_path / "cut")) == ["shard-00000.tar"]


@pytest.mark.parametrize("key", ["set/00", "v1.5", "a/b.c", "", "a/"])
def test_a_key_that_would_not_come_back_is_refused(tmp_path, key):
    with ShardWriter(tmp_path / "set") as writer:
        writer.add("set/00", {"txt": b""})
        with pytest.raises(ShardError, match=r"unique, with a name that has no dot\. Got '"):
            writer.add(key, {"txt": b""})
        writer.add("v1.5/a", {"txt": b""})  # a dot in a folder's name is fine
    assert list(read(tmp_path / "set")) == ["set/00", "v1.5/a"]


def test_shards_are_not_written_among_others(tmp_path):
    folder = write(tmp_path / "set")
    with pytest.raises(ShardError, match=r"set must hold no shards yet, and has manifest\.json"):
        ShardWriter(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(ShardError, match=r"has shard-00000\.tar\. Write to another folder"):
        ShardWriter(folder)


def test_a_folder_without_a_manifest_and_a_single_shard_are_read_too(tmp_path):
    folder = write(tmp_path / "set")
    (folder / MANIFEST).unlink()
    (folder / "notes.txt").write_text("not a shard")
    assert read(folder) == SAMPLES
    assert list(read(folder / "shard-00001.tar")) == ["set/03", "set/04", "set/05"]


def test_a_damaged_folder_is_named_before_anything_is_read(tmp_path):
    folder = write(tmp_path / "set")
    shard = folder / "shard-00001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-512])
    with pytest.raises(ShardError, match=r"shard-00001\.tar is cut short or was changed: 9,728 bytes, not 10,240\."):
        ShardSet(folder)
    shard.unlink()
    with pytest.raises(ShardError, match=r"shard-00001\.tar is missing\. Copy it again, or remove manifest\.json"):
        ShardSet(folder)
    (folder / MANIFEST).unlink()
    shard.write_bytes(content[:1500])
    with pytest.raises(ShardError, match=r"shard-00001\.tar is cut short or damaged"):
        ShardSet(folder)


def test_a_shard_with_other_samples_than_the_manifest_says_is_refused(tmp_path):
    folder = write(tmp_path / "set")
    shutil.copy(folder / "shard-00002.tar", folder / "shard-00000.tar")  # 1 sample for 3, of the same size
    with pytest.raises(ShardError, match=r"shard-00000\.tar must hold 3 samples, as manifest\.json says\. It holds 1"):
        ShardSet(folder, verify=False)[0]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "other", "shards": []}', '{"shards": [1]}'])
def test_a_manifest_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(ShardError, match=r"manifest\.json must be a manifest of diptych-shards-1"):
        ShardSet(tmp_path)


def test_a_place_without_samples_is_refused(tmp_path):
    write(tmp_path / "empty", {})
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "empty"):
        with pytest.raises(ShardError, match=f"{path.name} must be a folder with .tar shards of pairs, or one shard"):
            ShardSet(path)


def test_an_index_outside_is_refused_rather_than_wrapped(tmp_path):
    shards = ShardSet(write(tmp_path / "set"))
    for index in (-1, 7):
        with pytest.raises(IndexError, match="0 to 6"):
            shards[index]


def test_a_shard_that_vanishes_is_one_sentence(tmp_path):
    shards = ShardSet(write(tmp_path / "set"))
    assert shards[0].key == "set/00"
    (tmp_path / "set" / "shard-00001.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-00001\.tar cannot be opened: No such file"):
        shards[3]


def test_a_folder_that_is_written_anew_is_not_read_by_old_offsets(tmp_path):
    write(tmp_path / "set")
    assert read(tmp_path / "set") == SAMPLES
    shutil.rmtree(tmp_path / "set")
    backwards = dict(reversed(SAMPLES.items()))
    write(tmp_path / "set", backwards)
    assert list(read(tmp_path / "set").items()) == list(backwards.items())


def test_the_fingerprint_holds_for_a_copy_and_changes_with_the_samples(tmp_path):
    folder = write(tmp_path / "set")
    fingerprint = ShardSet(folder).fingerprint()
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / MANIFEST).unlink()
    assert ShardSet(tmp_path / "copy").fingerprint() == fingerprint
    others = {key: SAMPLES[key] for key in list(SAMPLES)[:-1]}
    assert ShardSet(write(tmp_path / "other", others)).fingerprint() != fingerprint


def test_a_sample_is_plain_data(tmp_path):
    sample = ShardSet(write(tmp_path / "set"))[2]
    assert dataclasses.asdict(sample) == {"key": "set/02", "parts": {"png": b"\x02\x02\x02", "txt": b"thing 2"}}


def test_captions_are_read_without_the_picture(tmp_path, monkeypatch):
    shards = ShardSet(write(tmp_path / "set"))
    sizes, read = [], TarReader.read
    monkeypatch.setattr(TarReader, "read", lambda self, *span: sizes.append(span[1]) or read(self, *span))
    assert [shards.captions(n) for n in (0, 6)] == [["thing 0"], ["thing 6"]]
    assert sizes == [len("thing 0")] * 2


def test_keys_that_come_again_in_other_shards_get_the_name_of_their_shard(tmp_path):
    for number in (0, 1):
        write(tmp_path / "set", {"same": {"jpg": b"", "txt": b"x"}}, name=f"{number}-{{}}")
        (tmp_path / "set" / MANIFEST).unlink()
        (tmp_path / "set" / f"{number}-0.tar").rename(tmp_path / "set" / f"{number}.tar_")
    for path in (tmp_path / "set").iterdir():
        path.rename(path.with_suffix(".tar"))
    assert list(read(tmp_path / "set")) == ["0/same", "1/same"]
    assert ShardSet(tmp_path / "set").check()[-1].endswith("so the name of its shard goes before each.")
    write_manifest(tmp_path / "set")
    assert list(read(tmp_path / "set")) == ["0/same", "1/same"]  # no header tells that now


def test_a_manifest_is_written_for_shards_of_another_tool(tmp_path):
    folder = write(tmp_path / "set")
    ours = (folder / MANIFEST).read_bytes()
    with pytest.raises(ShardError, match=r"must have no manifest\.json yet"):
        write_manifest(folder)
    (folder / MANIFEST).unlink()
    write_manifest(folder)
    assert (folder / MANIFEST).read_bytes() == ours


def test_damaged_shards_are_borne_up_to_the_limit_and_their_samples_say_why(tmp_path):
    folder = write(tmp_path / "set")  # 3 + 3 + 1 samples
    (folder / "shard-00002.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-00002\.tar is missing"):
        ShardSet(folder, max_bad=0.1)
    shards = ShardSet(folder, max_bad=0.2)
    assert len(shards) == 7
    assert shards[5].key == "set/05"
    with pytest.raises(ShardError, match="is missing") as caught:
        shards[6]
    assert caught.value.cause == "shard-00002.tar is missing"


def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path):
    folder = write(tmp_path / "set")
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text().replace("shard-00000.tar", "../shard-00000.tar"))
    with pytest.raises(ShardError, match=r"must be a manifest of diptych-shards-1"):
        ShardSet(folder)


def bare(folder: Path, *shards: dict[str, bytes], names: str = "{}.tar") -> Path:
    """Shards of another tool: members by name, no manifest."""
    for number, members in enumerate(shards):
        path = folder / names.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w:bz2" if path.suffix == ".bz2" else "w:gz" if path.suffix == ".tgz" else "w") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder


@pytest.mark.parametrize("verify", [True, False])
def test_a_flipped_bit_in_a_shard_is_its_samples_wrong_checksum(tmp_path, verify):
    folder = write(tmp_path / "set")
    shard = folder / "shard-00001.tar"
    content = bytearray(shard.read_bytes())
    content[512] ^= 1  # the first byte of a picture: no header tells
    shard.write_bytes(content)
    shards = ShardSet(folder, verify=verify)
    assert shards[0].key == "set/00"
    if not verify:
        assert shards[3].parts["png"] != SAMPLES["set/03"]["png"]
        return
    for index in (3, 5):
        with pytest.raises(ShardError, match=r"shard-00001\.tar is damaged or was changed: its SHA-256") as caught:
            shards[index]
        assert caught.value.cause == "shard-00001.tar has a wrong checksum"
    assert shards[6].key == "set/06"


def test_the_digest_of_a_shard_is_looked_at_once(tmp_path, monkeypatch):
    folder, hashed = write(tmp_path / "set"), []
    monkeypatch.setattr(module, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    shards = ShardSet(folder)
    assert hashed == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: shards[n % 7].key, range(70)))
    assert sorted(hashed) == [f"shard-{n:05d}.tar" for n in range(3)]


def test_keys_with_a_dot_are_pairs_and_it_is_said(tmp_path):
    members = {f"photo.{n:02d}.{e}": f"{e} {n}".encode() for n in range(40) for e in ("jpg", "txt")}
    folder = bare(tmp_path / "set", members, {"photo.90.jpg": b"P", "photo.90.txt": b"last"})
    shards = ShardSet(folder)
    assert len(shards) == 41
    assert (shards[7].key, shards[7].parts) == ("photo.07", {"jpg": b"jpg 7", "txt": b"txt 7"})
    assert shards.captions(40) == ["last"]
    (note,) = shards.check()
    assert "keys end at the last dot of a name in 41 of 41 samples, e.g. photo.00" in note


def test_shards_without_pairs_name_their_endings_and_the_fields_of_their_json(tmp_path):
    members = {f"{n}.{e}": b'{"texts": ["a", "b"], "url": ""}' for n in range(3) for e in ("xyz", "json")}
    folder = bare(tmp_path / "set", members)
    sentence = r"None of 3 has both; the shards have \.xyz 3, \.json 3\. Name.*\(.* as json:texts or json:url\)"
    with pytest.raises(ShardError, match=sentence):
        ShardSet(folder).check()
    shards = ShardSet(folder, members=Members("xyz", ("json:texts",)))
    assert shards.captions(2) == ["a", "b"]
    assert shards[2].picture == members["2.xyz"]
    assert len(shards.check()) == 1  # that captions are a field
    other = bare(tmp_path / "other", {"0.jpg": b"P", "0.json": b'{"texts": ["a"]}'})  # as MetaCLIP's are
    with pytest.raises(ShardError, match=r"shards have \.jpg 1, \.json 1\..* as json:texts\)"):
        ShardSet(other).check()


def test_what_no_rule_reads_is_said(tmp_path):
    members = {"0.jpg": b"P", "0.txt": b"x", "0.json": b"{}", "1.jpg": b"P", "2.txt": b"x", "README": b""}
    said = [note.removeprefix(f"{tmp_path}: ") for note in ShardSet(bare(tmp_path, members)).check()]
    assert said == [
        "1 of 3 samples have no picture.",
        "1 of 3 samples have no caption.",
        "members that no rule reads: .json 1.",
        "members of no sample: files without an ending 1.",
    ]


@pytest.mark.parametrize("names", ["{}.tgz", "{}.tar.bz2", "part-{}/00000.tar", "{}.TAR"])
def test_shards_are_found_by_their_usual_names_also_one_folder_down(tmp_path, names):
    folder = bare(tmp_path / "set", {"a.jpg": b"P", "a.txt": b"x"}, {"b.jpg": b"P", "b.txt": b"y"}, names=names)
    assert list(read(folder)) == ["a", "b"]
    write_manifest(folder)
    assert list(read(folder)) == ["a", "b"]


def test_splits_in_one_folder_are_said_and_a_pattern_takes_one(tmp_path):
    for split in ("train", "validation"):
        bare(tmp_path / "set", {f"{split}.jpg": b"P", f"{split}.txt": b"x"}, names=f"cc3m-{split}-{{}}.tar")
    (note,) = ShardSet(tmp_path / "set").check()
    assert "files of the splits train and validation are read together" in note
    shards = ShardSet(tmp_path / "set" / "*train*")
    assert (list(read(tmp_path / "set" / "*train*")), shards.check()) == (["train"], [])
    with pytest.raises(ShardError, match="It holds no sample"):
        ShardSet(tmp_path / "set" / "*dev*")


def test_a_damaged_first_shard_is_counted_and_the_next_is_looked_at(tmp_path):
    folder = write(tmp_path / "set")
    content = bytearray((folder / "shard-00000.tar").read_bytes())
    content[512] ^= 1
    (folder / "shard-00000.tar").write_bytes(content)
    shards = ShardSet(folder)
    assert shards.check() == []
    with pytest.raises(ShardError, match="SHA-256"):
        shards[0]
    assert shards[3].key == "set/03"


def test_a_compressed_shard_is_inflated_once(tmp_path, monkeypatch):
    folder = write(tmp_path / "set", compress=True, samples_per_shard=10)
    calls, decompress = [], gzip.decompress
    monkeypatch.setattr(gzip, "decompress", lambda content: calls.append(None) or decompress(content))
    assert read(folder) == SAMPLES
    assert len(calls) == 1
