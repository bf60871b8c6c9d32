import contextlib
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import foreign_files
from diptych.errors import WeightsError
from diptych.weights.flax_files import as_torch_names, read_msgpack, read_npz
from diptych.weights.stored import open_stored_model
from diptych.weights.tensors import read_tensors

# flax 0.8.5, serialization.to_bytes of a tree with float32, float16, bfloat16, int8, and numbers alone.
WRITTEN = bytes.fromhex(
    "86a56c6179657282a66b65726e656cc7260193920203a7666c6f61743332c4180000803f0000004000004040000080400000a0400000c040"
    "a462696173c71301939103a7666c6f61743136c406004700488048a46e6f726d81a57363616c65c71201939102a862666c6f61743136c404"
    "c03f00c0a5656d62656481a9656d62656464696e67c71e0193920202a7666c6f61743332c410000000000000803f0000004000004040ab6c"
    "6f6769745f7363616c65d8039390a7666c6f61743332c40400002040a5636f756e74c712039390a5696e743634c4080300000000000000a4"
    "636f6e7681a66b65726e656cc72501939402030104a4696e7438c418000102030405060708090a0b0c0d0e0f1011121314151617"
)
# The same with arrays cut into parts of 16 bytes, where flax cuts at 1 GiB.
IN_PARTS = bytes.fromhex(
    "81a362696781a66b65726e656c83b95f5f6d73677061636b5f6368756e6b65645f61727261795f5fc3a5736861706582a13005a13102a663"
    "68756e6b7383a130c71d01939104a7666c6f61743332c410000000000000803f0000004000004040a131c71d01939104a7666c6f61743332"
    "c410000080400000a0400000c0400000e040a132c71501939102a7666c6f61743332c4080000004100001041"
)


def file_of(folder: Path, data: bytes) -> Path:
    path = folder / "flax_model.msgpack"
    path.write_bytes(data)
    return path


def test_arrays_that_flax_wrote_come_back_in_its_types_and_shapes(tmp_path):
    found = read_msgpack(file_of(tmp_path, WRITTEN))
    expected = {
        "layer.kernel": torch.tensor([[1.0, 2, 3], [4, 5, 6]]),
        "layer.bias": torch.tensor([7.0, 8, 9]).half(),
        "norm.scale": torch.tensor([1.5, -2]).bfloat16(),
        "embed.embedding": torch.arange(4.0).reshape(2, 2),
        "logit_scale": torch.tensor(2.5),
        "count": torch.tensor(3),
        "conv.kernel": torch.arange(24, dtype=torch.int8).reshape(2, 3, 1, 4),
    }
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_an_array_in_parts_is_put_together(tmp_path):
    found = read_msgpack(file_of(tmp_path, IN_PARTS))
    assert torch.equal(found["big.kernel"], torch.arange(10.0).reshape(5, 2))


def test_layers_are_turned_into_torchs():
    kernel, embedding = torch.rand(3, 4), torch.rand(5, 3)
    found = as_torch_names(
        {
            "params.a.kernel": kernel,
            "params.conv.kernel": torch.arange(24).reshape(2, 3, 1, 4),
            "params.norm.scale": kernel[0],
            "params.words.embedding": embedding,
            "params.logit_scale": kernel[0, 0],
        }
    )
    assert found.keys() == {"a.weight", "conv.weight", "norm.weight", "words.weight", "logit_scale"}
    assert torch.equal(found["a.weight"], kernel.T)
    assert found["conv.weight"].shape == (4, 1, 2, 3)  # [H, W, I, O] -> [O, I, H, W]
    assert found["conv.weight"][1, 0, 1, 2] == 1 * 12 + 2 * 4 + 1
    assert torch.equal(found["words.weight"], embedding)


@pytest.mark.parametrize("top", ["", "params."])
def test_a_flax_clip_gives_the_features_that_transformers_made_of_it(tmp_path, top):
    stored = foreign_files.read("flax")
    arrays = {top + name: foreign_files.drawn(name, tuple(shape)) for name, shape in stored["arrays"].items()}
    file_of(tmp_path, foreign_files.packed(foreign_files.nested(arrays)))
    (tmp_path / "config.json").write_text(json.dumps(stored["config"]))
    found = open_stored_model(tmp_path)
    assert (found.kind, found.weights) == ("transformers folder", tmp_path / "flax_model.msgpack")
    model = found.build()
    with torch.no_grad():
        images = model.encode_image(torch.from_numpy(foreign_files.pixels()))
        texts = model.encode_text(torch.from_numpy(foreign_files.tokens()))
    np.testing.assert_allclose(images, stored["image_features"], atol=1e-5)
    np.testing.assert_allclose(texts, stored["text_features"], atol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (WRITTEN[:-1], "it is cut short"),
        (WRITTEN + b"\xc0", "something follows its end"),
        (b"\xc1", "it is no MessagePack"),
        (b"\x91" * 60 + b"\xc0", "its maps are too deep"),
        (b"\xc7\x01\x05x", "an extension of the unknown type 5"),
        (b"\xdf\xff\xff\xff\xff", "it is cut short"),
        (WRITTEN.replace(b"float16", b"float17"), "of the unknown type 'float17'"),
        (WRITTEN.replace(b"\x92\x02\x03\xa7", b"\x92\x02\x04\xa7"), r"an array of \[2, 4\] float32 has 24 bytes"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, data, message):
    with pytest.raises(WeightsError, match=message) as caught:
        read_tensors(file_of(tmp_path, data))
    assert "\n" not in str(caught.value)


@given(st.integers(0, len(WRITTEN) - 1), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_any_byte_changed_gives_a_weights_error_or_tensors(at, byte):
    with tempfile.TemporaryDirectory() as folder:
        path = file_of(Path(folder), WRITTEN[:at] + bytes([byte]) + WRITTEN[at + 1 :])
        with contextlib.suppress(WeightsError):
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_tensors(path).tensors.values())


def test_an_npz_comes_back_halves_of_jax_too(tmp_path):
    brain = torch.tensor([1.5, -2.0, 3.0]).bfloat16()
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "one": np.float32(2.5)}
    np.savez(tmp_path / "x.npz", **arrays, brain=brain.view(torch.int16).numpy().view("V2"))
    found = read_npz(tmp_path / "x.npz")
    assert found.keys() == {"a/b", "one", "brain"}
    assert torch.equal(found["a/b"], torch.arange(6.0).reshape(2, 3))
    assert found["one"].shape == ()
    assert torch.equal(found["brain"], brain)


def test_an_npz_with_objects_runs_nothing(tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (ran,))

    np.savez(tmp_path / "x.npz", a=np.array([Evil()], dtype=object))
    with pytest.raises(WeightsError, match="cannot be read: Object arrays cannot be loaded"):
        read_tensors(tmp_path / "x.npz")
    assert not ran.exists()


def test_an_npz_that_unpacks_to_much_more_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros(10_000_000, np.float32))
    with pytest.raises(WeightsError, match=r"it unpacks to 40,\d{3},\d{3} bytes, and is not to be trusted"):
        read_tensors(tmp_path / "x.npz")


def test_no_zip_and_a_damaged_one_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(WeightsError, match="cannot be read: File is not a zip file"):
        read_tensors(path)
    np.savez(path, a=np.arange(1000, dtype=np.float32))
    path.write_bytes(path.read_bytes().replace(b"descr", b"descx"))
    with pytest.raises(WeightsError, match=r"x\.npz cannot be read"):
        read_tensors(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00v\x00")
    with pytest.raises(WeightsError, match=r"x\.npz cannot be read"):
        read_tensors(path)
