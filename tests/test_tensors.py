import contextlib
import io
import json
import os
import pickle
import random
import re
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diptych.errors import WeightsError
from diptych.torch_runtime import generator
from diptych.weights.tensors import TensorFile, read_tensors

LINUX = Path("/proc/self/maps").exists()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


STATE = {
    "matrix": drawn(3, 4),
    "half": drawn(5).half(),
    "brain": drawn(2, 2, 2).bfloat16(),
    "scalar": torch.tensor(2.5),
    "count": torch.tensor(7),
    "transposed": drawn(4, 3, seed=1).T.contiguous(),
}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def file_behind(tensor: Tensor) -> str:
    """The file whose pages a tensor's values lie in; empty when they are in memory alone."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= tensor.data_ptr() < high:
            return [*line.split(maxsplit=5), ""][5]
    raise AssertionError("a tensor is in none of the pages of this process")


def refusal(path: Path) -> str:
    """The one line that reading a file ends in."""
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The kinds of files


def test_safetensors_come_back(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "x.safetensors")
    file = read_tensors(tmp_path / "x.safetensors")
    assert_equal(file.tensors, STATE)
    assert not file.is_archive


@pytest.mark.parametrize("ending", [".bin", ".pt", ".pth", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_state_dict_comes_back_in_the_newer_format_and_the_older(tmp_path, ending, zipped):
    path = tmp_path / f"x{ending}"
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    file = read_tensors(path)
    assert_equal(file.tensors, STATE)
    assert not file.is_archive


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_training_checkpoint_gives_its_state_dict_under_plain_names(tmp_path, prefix):
    state = {prefix + name: tensor for name, tensor in STATE.items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "x.pt")
    assert_equal(read_tensors(tmp_path / "x.pt").tensors, STATE)


def test_prefixes_stay_that_no_wrapper_has_or_that_keep_names_apart(tmp_path):
    state = {"model.a": drawn(2), "model.b": drawn(2), "module.c": drawn(2), "c": drawn(2)}
    torch.save(state, tmp_path / "x.pt")
    assert_equal(read_tensors(tmp_path / "x.pt").tensors, state)


def test_what_is_no_tensor_in_a_state_dict_is_left_out(tmp_path):
    torch.save(STATE | {"version": 3, "name": "x"}, tmp_path / "x.bin")
    assert_equal(read_tensors(tmp_path / "x.bin").tensors, STATE)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_a_file_in_parts_is_read_by_its_index(tmp_path, ending):
    weight_map = {}
    for number, names in enumerate((("matrix", "half"), ("brain", "scalar", "count"), ("transposed",))):
        part = f"model-{number}{ending}"
        weight_map |= dict.fromkeys(names, part)
        state = {name: STATE[name] for name in names}
        if ending == ".bin":
            torch.save(state, tmp_path / part)
        else:
            safetensors.torch.save_file(state, tmp_path / part)
    index = tmp_path / f"model{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    file = read_tensors(index)
    assert_equal(file.tensors, STATE)
    assert not file.is_archive


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.scale = nn.Parameter(drawn(4, 6).T)  # not contiguous
        self.register_buffer("size", torch.tensor(224))
        self.name = "x"

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) @ self.scale.T


class Outer(nn.Module):
    """A module as OpenAI's are: halves, a shared parameter, buffers, modules in modules."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = Inner()
        self.text = Inner()
        self.text.layers[0].weight = self.visual.layers[0].weight
        self.batch_norm = nn.BatchNorm1d(6)
        self.logit_scale = nn.Parameter(torch.tensor(4.6))

    def forward(self, x: Tensor) -> Tensor:
        return self.batch_norm(self.visual(x) + self.text(x)) * self.logit_scale


def save_archive(module: nn.Module, path: Path, *, traced: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        script = torch.jit.trace(module, torch.zeros(2, 4)) if traced else torch.jit.script(module)
        torch.jit.save(script, str(path))


@pytest.mark.parametrize("traced", [True, False])
def test_an_archive_gives_the_state_dict_of_its_module(tmp_path, traced):
    module = Outer().eval()
    save_archive(module, tmp_path / "x.pt", traced=traced)
    file = read_tensors(tmp_path / "x.pt")
    assert_equal(file.tensors, dict(module.state_dict()))
    assert file.is_archive
    assert file.tensors["visual.scale"].stride() == (1, 6)


def test_an_archive_in_half_precision_comes_back(tmp_path):
    module = Outer().half().eval()
    save_archive(module, tmp_path / "x.pt", traced=False)
    file = read_tensors(tmp_path / "x.pt")
    assert_equal(file.tensors, dict(module.state_dict()))
    assert file.tensors["visual.scale"].dtype == torch.float16


@pytest.mark.skipif(not LINUX, reason="the mappings of a process are told by Linux's /proc")
@pytest.mark.parametrize("kind", ["safetensors", "pickle", "archive"])
def test_values_are_mapped_from_the_file_and_not_read(tmp_path, kind):
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind == "archive":
        save_archive(Outer().eval(), path, traced=False)
    elif kind == "pickle":
        torch.save(STATE, path)
    else:
        safetensors.torch.save_file(STATE, path)
    file = read_tensors(path)
    assert {file_behind(tensor) for tensor in file.tensors.values()} == {str(path)}
    before = path.read_bytes()
    for tensor in file.tensors.values():
        tensor.zero_()  # private pages: the file stays as it is
    assert path.read_bytes() == before


# Archives made by hand, in pickle's own letters: c a global, ( a mark, t a tuple since the mark, R a call, Q a storage


def storage(kind: str = "FloatStorage", key: str = "0", numel: int = 6) -> str:
    return f"(Vstorage\nctorch\n{kind}\nV{key}\nVcpu\nI{numel}\ntQ"


def tensor(values: str, *, offset: int = 0, size: tuple[int, ...] = (2, 3), stride: tuple[int, ...] = (3, 1)) -> str:
    def numbers(items: tuple[int, ...]) -> str:
        return "(" + "".join(f"I{item}\n" for item in items) + "t"

    end = "I00\nccollections\nOrderedDict\n)Rt"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({values}I{offset}\n{numbers(size)}{numbers(stride)}{end}R"


def module(**attributes: str) -> str:
    return "c__torch__\nModel\n)\x81}(" + "".join(f"V{name}\n{value}" for name, value in attributes.items()) + "ub"


VALUES = drawn(6)


def write_archive(
    path: Path, tree: str, *, folder: str = "model", compression: int = zipfile.ZIP_STORED, data: bytes | None = None
) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", b"\x80\x02" + tree.encode("latin-1") + b".")
        archive.writestr(f"{folder}/data/0", data or VALUES.numpy().tobytes(), compress_type=compression)
        archive.writestr(f"{folder}/constants.pkl", b"\x80\x02).")
        archive.writestr(f"{folder}/code/__torch__.py", b"")
    return path


@pytest.mark.parametrize("folder", ["m", "mo", "mod", "mode"])
def test_a_record_may_start_at_any_byte(tmp_path, folder):
    path = write_archive(tmp_path / "x.pt", module(weight=tensor(storage()), inner=module()), folder=folder)
    assert_equal(read_tensors(path).tensors, {"weight": VALUES.view(2, 3)})


def test_strides_and_offsets_within_the_storage_hold(tmp_path):
    tree = module(a=tensor(storage(), offset=2, size=(2, 2), stride=(1, 2)), b=tensor(storage(), size=(0, 9)))
    expected = {"a": VALUES[2:].as_strided((2, 2), (1, 2)), "b": torch.empty(0, 9)}
    assert_equal(read_tensors(write_archive(tmp_path / "x.pt", tree)).tensors, expected)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (tensor(storage(), size=(3, 3)), "reaches beyond its storage"),
        (tensor(storage(), offset=1), "reaches beyond its storage"),
        (tensor(storage(), offset=-1), "reaches beyond its storage"),
        (tensor(storage(), stride=(4, 1)), "reaches beyond its storage"),
        (tensor(storage(), stride=(-3, 1)), "reaches beyond its storage"),
        (tensor(storage(), size=(-2, 3)), "reaches beyond its storage"),
        (tensor(storage(), size=(2**62, 2**62)), "reaches beyond its storage"),
        (tensor(storage(numel=7)), "record 0 is compressed or cut short"),
        (tensor(storage(numel=2**60)), "record 0 is compressed or cut short"),
        (tensor(storage("DoubleStorage")), "record 0 is compressed or cut short"),
        (tensor(storage(key="1")), "model/data/1"),
        (tensor(storage(key="../../../etc/passwd")), "no item named"),
        (tensor(storage(numel=-6)), "reaches beyond its storage"),
        ("(VmoduleQ", "is no TorchScript archive that can be read"),
        (module(), "must hold a model's tensors, and holds none"),
        ("N", "must hold a model's tensors, and holds none"),
        ("", "is no TorchScript archive that can be read"),
        ("c__torch__\nModel\n)\x81q\x00}(Vmyself\nh\x00ub", "RecursionError"),
        (tensor("VFloat\n"), "is no TorchScript archive that can be read"),
        (tensor("ccollections\nOrderedDict\n)R"), "reaches beyond its storage"),
    ],
)
def test_an_archive_whose_tree_is_false_is_refused(tmp_path, tree, message):
    path = write_archive(tmp_path / "x.pt", tree if tree.startswith("c__torch__") else module(weight=tree))
    found = refusal(path)
    assert message in found
    assert found.startswith(str(path))


def test_a_record_that_is_compressed_is_refused(tmp_path):
    path = write_archive(
        tmp_path / "x.pt", module(weight=tensor(storage())), compression=zipfile.ZIP_DEFLATED, data=bytes(4000)
    )
    assert "must hold its tensors as they are, and unpacks 650 bytes to 4,167" in refusal(path)
    data = random.Random(0).randbytes(12)  # which no compression makes smaller
    path = write_archive(
        tmp_path / "y.pt", module(weight=tensor(storage())), compression=zipfile.ZIP_DEFLATED, data=data
    )
    assert "record 0 is compressed or cut short" in refusal(path)


@pytest.mark.parametrize("bomb", ["data.pkl", "data/0"])
def test_a_pickle_that_unpacks_to_more_than_its_file_is_refused_before_it_is_read(tmp_path, bomb):
    torch.save(STATE, tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "x.pt", "w") as bad:
        for info in good.infolist():
            is_bomb = info.filename.endswith(bomb)
            kind = zipfile.ZIP_DEFLATED if is_bomb else zipfile.ZIP_STORED
            bad.writestr(info.filename, bytes(50_000_000) if is_bomb else good.read(info), kind)
    assert "must hold its tensors as they are, and unpacks" in refusal(tmp_path / "x.pt")


@pytest.mark.parametrize("kept", [10, 200, 0.5, -1])
def test_an_archive_that_was_cut_short_is_refused(tmp_path, kept):
    save_archive(Outer().eval(), tmp_path / "x.pt", traced=False)
    whole = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert "cannot be read" in refusal(tmp_path / "x.pt")


# Code in a file


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def bare_pickle(data: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(data, protocol=2))


def older(data: object, path: Path) -> None:
    torch.save(data, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [torch.save, older, bare_pickle])
@pytest.mark.parametrize("place", ["alone", "beside tensors"])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path, write: Callable[[object, Path], None], place):
    hostile = Hostile(tmp_path / "marker")
    write(hostile if place == "alone" else {"x": hostile, "matrix": STATE["matrix"]}, tmp_path / "x.pt")
    message = refusal(tmp_path / "x.pt")
    assert "must hold tensors alone, and holds posix.system, which is code. Nothing of it was run." in message
    assert not (tmp_path / "marker").exists()
    pickle.loads(pickle.dumps(hostile))  # it does run elsewhere
    assert (tmp_path / "marker").exists()


def test_a_pickle_of_a_protocol_that_torch_does_not_write_is_refused_as_well(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "marker"), protocol=5))
    assert "must hold tensors alone, and holds no pickle of PyTorch's. Nothing of it was run." in refusal(
        tmp_path / "x.pt"
    )
    assert not (tmp_path / "marker").exists()
    torch.save(STATE, tmp_path / "y.pt", pickle_protocol=3)
    assert_equal(read_tensors(tmp_path / "y.pt").tensors, STATE)


@pytest.mark.parametrize("asked", ["posix\nsystem", "os\nsystem", "builtins\neval", "torch\nload", "_torch__\nx"])
def test_code_that_an_archive_asks_for_is_named_and_not_run(tmp_path, asked):
    call = f"c{asked}\n(Vtouch {tmp_path / 'marker'}\ntR"
    path = write_archive(tmp_path / "x.pt", module(weight=tensor(storage()), x=call))
    name = asked.replace("\n", ".")
    assert refusal(path).endswith(
        f"must hold tensors alone, and asks for {name}, which is code. Nothing of it was run."
    )
    assert not (tmp_path / "marker").exists()


def test_the_code_of_an_archive_is_not_run_whatever_it_is(tmp_path):
    module = Outer().eval()
    save_archive(module, tmp_path / "good.pt", traced=False)
    with zipfile.ZipFile(tmp_path / "good.pt") as good, zipfile.ZipFile(tmp_path / "x.pt", "w") as bad:
        for info in good.infolist():
            is_code = "/code/" in info.filename
            bad.writestr(info, f"import os; os.system('touch {tmp_path}/marker')" if is_code else good.read(info))
    assert_equal(read_tensors(tmp_path / "x.pt").tensors, dict(module.state_dict()))
    assert not (tmp_path / "marker").exists()


# Other files than they say


@pytest.mark.parametrize("place", ["../x.safetensors", "/etc/x.safetensors", "a/x.safetensors", "x.index.json", 7])
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path, place):
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.torch.save_file(STATE, tmp_path / "x.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"matrix": place}}))
    assert f"must name files beside it. Got {place!r}: it is not to be trusted." in refusal(index)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": []}}', '"\ud800"'])
def test_an_index_that_tells_no_files_is_refused(tmp_path, text):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text, errors="surrogatepass")
    assert "must tell which file each tensor is in" in refusal(index)


def test_a_part_that_is_missing_is_named(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"matrix": "model-1.safetensors"}}))
    assert refusal(index) == f"{tmp_path / 'model-1.safetensors'} must be a file of weights, and there is none."


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_safetensors_are_refused(tmp_path, kept):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors.torch.save(STATE)[:kept])
    assert re.fullmatch(r".*x\.safetensors cannot be read: .* Copy or download it again\.", refusal(path))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_pickles_are_refused(tmp_path, kept, zipped):
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=zipped)
    (tmp_path / "x.bin").write_bytes(buffer.getvalue()[:kept])
    assert refusal(tmp_path / "x.bin").startswith(f"{tmp_path / 'x.bin'} ")


@pytest.mark.parametrize("data", [[STATE["matrix"]], {"a": 1}, {}, {"state_dict": {}}, STATE["matrix"], None])
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path, data):
    torch.save(data, tmp_path / "x.pt")
    kind = type(data["state_dict"] if isinstance(data, dict) and "state_dict" in data else data).__name__
    assert f"must hold a state dict, tensors by name. Got {kind}." in refusal(tmp_path / "x.pt")


def test_another_ending_and_no_file_are_refused(tmp_path):
    (tmp_path / "x.h5").touch()
    assert "one of the endings .safetensors, .bin, .pt, .pth, .ckpt, .msgpack, .npz. Got" in refusal(tmp_path / "x.h5")
    (tmp_path / "folder.safetensors").mkdir()
    assert "must be a file of weights, and there is none" in refusal(tmp_path / "folder.safetensors")
    assert "must be a file of weights, and there is none" in refusal(tmp_path / "nothing.pt")


def test_a_safetensors_header_that_claims_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refusal(path)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    refusal(path)


# Damage at random


def _samples() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "x.pt"
        write_archive(
            archive, module(weight=tensor(storage()), inner=module(bias=tensor(storage(), size=(6,), stride=(1,))))
        )
        files = {"archive.pt": archive.read_bytes()}
    for name, zipped in (("newer.pt", True), ("older.pt", False)):
        buffer = io.BytesIO()
        torch.save(STATE, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = buffer.getvalue()
    return files | {"x.safetensors": safetensors.torch.save(STATE)}


SAMPLES = _samples()


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=100, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 6))
def test_a_damaged_file_gives_a_weights_error_or_tensors_and_nothing_else(name, seed, flips):
    data, draw = bytearray(SAMPLES[name]), random.Random(seed)
    for _ in range(flips):
        data[draw.randrange(len(data))] = draw.randrange(256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        file = TensorFile({}, is_archive=False)
        with contextlib.suppress(WeightsError):
            file = read_tensors(path)
        for values in file.tensors.values():
            assert values.clone().shape == values.shape  # each value that it claims is there to be read


def test_tensors_beside_the_models_are_named(tmp_path):
    anchor = "vision_model.embeddings.patch_embedding.weight"
    weights = {f"clip.{anchor}": torch.zeros(2), "clip.logit_scale": torch.zeros(()), "decoder.weight": torch.ones(3)}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    found = read_tensors(tmp_path / "model.safetensors")
    assert set(found.tensors) == {anchor, "logit_scale"}
    assert found.beside == ("decoder.weight",)
