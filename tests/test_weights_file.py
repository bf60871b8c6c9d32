import pytest

from diptych.errors import WeightsError
from diptych.weights.weights_file import choose_weights

HF, OPEN_CLIP = "config.json", "open_clip_config.json"
FP16 = "model.safetensors.index.fp16.json"
BOTH = [HF, OPEN_CLIP]


def chosen(*names: str, described: list[str] = [HF], asked: str = "") -> tuple[str, str] | None:  # noqa: B006
    found = choose_weights(names, described, where="here", asked=asked)
    return found and (found.name, found.config)


@pytest.mark.parametrize(
    ("names", "described", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin"], [HF], ("model.safetensors", HF)),
        (["model.safetensors.index.json", "pytorch_model.bin"], [HF], ("model.safetensors.index.json", HF)),
        (["pytorch_model.bin.index.json", "flax_model.msgpack"], [HF], ("pytorch_model.bin.index.json", HF)),
        (["flax_model.msgpack", "tf_model.h5"], [HF], ("flax_model.msgpack", HF)),
        (["model.safetensors", "open_clip_model.safetensors"], BOTH, ("model.safetensors", HF)),
        (["open_clip_model.safetensors", "pytorch_model.bin"], BOTH, ("open_clip_model.safetensors", OPEN_CLIP)),
        (["model.safetensors", "open_clip_pytorch_model.bin"], [OPEN_CLIP], ("open_clip_pytorch_model.bin", OPEN_CLIP)),
        (["model.safetensors"], [OPEN_CLIP], ("model.safetensors", OPEN_CLIP)),
        (["pytorch_model.bin"], [OPEN_CLIP], ("pytorch_model.bin", OPEN_CLIP)),
        (["model.fp16.safetensors", "tf_model.h5"], [HF], ("model.fp16.safetensors", HF)),
        (["open_clip_model.fp16.safetensors"], BOTH, ("open_clip_model.fp16.safetensors", OPEN_CLIP)),
        (["best.safetensors", "optimizer.pt", "rng_state_0.pth", "training_args.bin"], [HF], ("best.safetensors", HF)),
        (["epoch_30.pt"], [OPEN_CLIP], ("epoch_30.pt", OPEN_CLIP)),
        ([FP16, "model-00001-of-00002.fp16.safetensors"], [HF], (FP16, HF)),
        (["model.safetensors"], [], None),
        (["README.md", "onnx/model.onnx", "tf_model.h5"], [HF], None),
        (["../evil.safetensors", "a/b.safetensors", ".hidden.safetensors", "x..safetensors"], [HF], None),
    ],
)  # fmt: skip
def test_the_best_weights_that_a_config_describes_are_taken(names, described, expected):
    assert chosen(*names, described=described) == expected
    assert chosen(*reversed(names), described=described) == expected


def test_of_several_that_nobody_knows_none_is_guessed():
    with pytest.raises(WeightsError, match=r"here holds a\.safetensors, b\.pt\. Say which is meant: give that file"):
        chosen("a.safetensors", "b.pt")
    with pytest.raises(WeightsError, match=r"here holds model\.bf16\.safetensors, model\.fp16\.safetensors\."):
        chosen("model.fp16.safetensors", "model.bf16.safetensors", "other.pt")


def test_one_that_is_asked_for_is_taken_with_the_config_that_its_name_tells():
    names = ("model.safetensors", "a.safetensors", "open_clip_pytorch_model.bin")
    assert chosen(*names, asked="a.safetensors") == ("a.safetensors", HF)
    assert chosen(*names, described=BOTH, asked="open_clip_pytorch_model.bin") == (names[2], OPEN_CLIP)
    assert chosen(*names, described=[OPEN_CLIP], asked="a.safetensors") == ("a.safetensors", OPEN_CLIP)
    assert chosen(*names, asked="b.safetensors") is None


def test_parts_without_their_index_are_no_model():
    with pytest.raises(WeightsError, match=r"holds parts of weights, such as model-00001-of-.* without"):
        chosen("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_an_adapter_is_refused():
    with pytest.raises(WeightsError, match=r"here is an adapter, as its adapter_config\.json says"):
        chosen("adapter_config.json", "adapter_model.safetensors", "config.json", "model.safetensors")
    assert chosen("adapter_model.safetensors") is None


def test_whether_a_name_tells_the_config_is_told():
    for name, tells in (("model.fp16.safetensors", True), ("open_clip_model.safetensors", True), ("best.pt", False)):
        found = choose_weights([name], BOTH, where="here")
        assert found
        assert found.is_published == tells
