import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.errors import ConfigError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.model.efficientnet_tower import EfficientNetTowerConfig
from diptych.model.presets import preset
from diptych.model.sentence_tower import SentenceTowerConfig
from diptych.torch_runtime import generator
from diptych.weights import eight_bit
from diptych.weights.bundle import Bundle
from diptych.weights.convert import Format, save_as
from diptych.weights.eight_bit import from_eight_bits, to_eight_bits
from diptych.weights.golden import golden_picture
from diptych.weights.registry import model_info

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "cat", "dog", "##s", ",", "two", "kite", "##e", "red"]
TEXTS = ["a photo of a cat", "two dogs, a kite"]


def word_piece() -> Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece({word: id_ for id_, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return Tokenizer(backend, context_length=16)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    config = CLIPConfig(
        embed_dim=32,
        image=EfficientNetTowerConfig(image_size=32, width=0.25, final_width=64),
        text=SentenceTowerConfig(context_length=16, vocab_size=len(WORDS), width=24, layers=2, heads=3, head_width=48),
    )
    return Bundle(model=CLIP(config, generator(0)).eval(), preprocess=Preprocess(image_size=32), tokenizer=word_piece())


@pytest.fixture
def _short_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight_bit, "_SHORT", 1)


def test_short_rows_stay_as_they_are():
    weights = {"depthwise": torch.randn(80, 1, 5, 5), "long": torch.randn(2, 64), "short": torch.randn(2, 63)}
    stored = to_eight_bits(weights)
    assert stored["depthwise"] is weights["depthwise"]
    assert {name: tensor.dtype for name, tensor in stored.items() if tensor.dtype != torch.float32} == {
        "long": torch.int8
    }
    assert set(stored) == {*weights, "long:scale"}


@pytest.mark.usefixtures("_short_rows_too")
def test_rows_become_127_steps_and_come_back():
    weights = {
        "matrix": torch.tensor([[1.27, -0.5, 0.004], [0.0, 0.0, 0.0], [-254.0, 3.0, 1.01]]),
        "bias": torch.tensor([0.1, 0.2]),
        "count": torch.tensor(3),
    }
    stored = to_eight_bits(weights)
    assert stored["matrix"].tolist() == [[127, -50, 0], [0, 0, 0], [-127, 2, 1]]  # 3 / 2 rounds to the even 2
    assert stored["matrix"].dtype == torch.int8
    assert stored["matrix:scale"].tolist() == pytest.approx([0.01, 0.0, 2.0])
    back = from_eight_bits(stored)
    assert list(back) == ["matrix", "bias", "count"]
    torch.testing.assert_close(back["matrix"], torch.tensor([[1.27, -0.5, 0.0], [0.0, 0.0, 0.0], [-254.0, 4.0, 2.0]]))
    assert back["bias"] is weights["bias"]


@pytest.mark.usefixtures("_short_rows_too")
@pytest.mark.parametrize("shape", [(5, 7), (6, 3, 3, 3), (8, 1, 5, 5)])
def test_the_error_is_at_most_half_a_step_of_the_row(shape: tuple[int, ...]):
    tensor = torch.randn(shape, generator=generator(1)) * torch.logspace(-3, 3, shape[0]).view(
        -1, *[1] * len(shape[1:])
    )
    back = from_eight_bits(to_eight_bits({"w": tensor}))["w"]
    half_step = tensor.flatten(1).abs().amax(1) / 254
    assert ((back - tensor).flatten(1).abs().amax(1) <= half_step * 1.001).all()


@pytest.mark.usefixtures("_short_rows_too")
def test_factors_that_are_missing_or_too_few_are_named():
    stored = to_eight_bits({"text.w": torch.ones(3, 2)})
    with pytest.raises(WeightsError, match=r"text\.w:scale must hold one factor for each of 3 rows\. Got \[2\]"):
        from_eight_bits(stored | {"text.w:scale": torch.ones(2)})
    del stored["text.w:scale"]
    with pytest.raises(WeightsError, match=r"text\.w:scale must hold .* Got none"):
        from_eight_bits(stored)


def test_a_table_of_4_bits_holds_16_steps_of_32_columns_each():
    row = torch.cat(
        [torch.linspace(-8, 7, 16), torch.zeros(16), torch.linspace(-0.8, 0.7, 16), torch.full((16,), 0.25)]
    )
    table = torch.stack([row, torch.zeros(64)])
    stored = to_eight_bits({"text.token_embedding.weight": table, "text.w": table}, table_bits=4)
    assert stored["text.w"].dtype == torch.int8
    packed, scale = stored["text.token_embedding.weight"], stored["text.token_embedding.weight:scale"]
    assert (packed.dtype, packed.shape, scale.dtype, scale.shape) == (torch.uint8, (2, 32), torch.float16, (2, 2))
    assert (packed[0, :16] & 15).tolist() == list(range(16))  # the first column is -8, and 8 is added
    assert (packed[1] == 8 | 8 << 4).all()
    back = from_eight_bits(stored)["text.token_embedding.weight"]
    torch.testing.assert_close(back[0, :32], row[:32], rtol=0, atol=1e-2)
    torch.testing.assert_close(back[0, 32:], row[32:], rtol=0, atol=0.06)
    assert not back[1].any()


def test_a_table_of_4_bits_loses_little():
    table = torch.randn(500, 128, generator=generator(3)) * torch.logspace(-3, 1, 500)[:, None]
    back = from_eight_bits(to_eight_bits({"text.token_embedding.weight": table}, table_bits=4))
    lost = (back["text.token_embedding.weight"] - table).norm(dim=1) / table.norm(dim=1)
    assert lost.max() < 0.12
    assert lost.mean() < 0.09


@pytest.mark.parametrize("table", [torch.ones(3, 80), torch.full((3, 64), 1e6), torch.full((3, 64), 1e-6)])
def test_a_table_that_32_columns_a_factor_or_float16_do_not_fit_stays_at_8_bits(table):
    stored = to_eight_bits({"text.token_embedding.weight": table}, table_bits=4)
    assert stored["text.token_embedding.weight"].dtype == torch.int8
    torch.testing.assert_close(from_eight_bits(stored)["text.token_embedding.weight"], table)


def test_factors_of_a_table_of_4_bits_that_are_missing_are_named():
    stored = to_eight_bits({"text.token_embedding.weight": torch.ones(3, 64)}, table_bits=4)
    stored["text.token_embedding.weight:scale"] = torch.ones(3, 1)
    must = r"text\.token_embedding\.weight:scale must hold 2 factors for each of 3 rows\. Got \[3, 1\]\."
    with pytest.raises(WeightsError, match=must):
        from_eight_bits(stored)


def test_a_table_of_4_bits_is_for_weights_in_8_bits(bundle, tmp_path):
    with pytest.raises(ConfigError, match=r"or 4 where dtype is int8\. Got 4 beside torch\.float16\."):
        bundle.save(tmp_path / "model", dtype=torch.float16, table_bits=4)


@pytest.mark.usefixtures("_short_rows_too")
def test_a_bundle_in_8_bits_is_a_quarter_and_gives_nearly_the_same_features(bundle, tmp_path):
    bundle.save(tmp_path / "whole")
    bundle.save(tmp_path / "small", dtype=torch.int8)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "whole")]
    assert sizes[0] < 0.35 * sizes[1]  # channels are few here, so factors and biases weigh much
    small = Bundle.load(tmp_path / "small")  # its golden features are checked
    assert {parameter.dtype for parameter in small.model.parameters()} == {torch.float32}
    for ours, theirs in (
        (bundle.encode_texts(TEXTS), small.encode_texts(TEXTS)),
        (bundle.encode_images([golden_picture()]), small.encode_images([golden_picture()])),
    ):
        assert (ours * theirs).sum(axis=1).min() > 0.99
    info = model_info(tmp_path / "small")
    assert info.types == "float32, int8"
    assert info.parameters == sum(parameter.numel() for parameter in bundle.model.parameters())
    assert "EfficientNet-Lite, 1-2-2-3-3-4-1 blocks; text: 2 layers of 24, 15 x 16 tokens" in info.architecture


@pytest.mark.usefixtures("_short_rows_too")
def test_8_bits_saved_again_are_the_same_weights(bundle, tmp_path):
    bundle.save(tmp_path / "a", dtype=torch.int8)
    again = Bundle.load(tmp_path / "a")
    again.save(tmp_path / "b", dtype=torch.int8)
    assert Bundle.load(tmp_path / "b").fingerprint() == again.fingerprint()


@pytest.mark.usefixtures("_short_rows_too")
def test_a_damaged_file_is_named(bundle, tmp_path):
    bundle.save(tmp_path / "a", dtype=torch.int8)
    path = tmp_path / "a" / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    del weights["text.head.up.weight:scale"]
    safetensors.torch.save_file(weights, path)
    with pytest.raises(WeightsError, match=r"model\.safetensors: text\.head\.up\.weight:scale must hold"):
        Bundle.load(tmp_path / "a")


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-resnet"])
def test_a_model_that_others_open_is_in_8_bits_a_folder_of_ours_alone(name: str, tmp_path: Path):
    tokenizer = Tokenizer.train(["a red kite", "a blue boat"] * 3, vocab_size=530, context_length=16)
    tiny = preset(name)
    text = dataclasses.replace(tiny.text, vocab_size=tokenizer.vocab_size)
    model = CLIP(dataclasses.replace(tiny, text=text), generator(0))
    whole = Bundle(model=model, preprocess=Preprocess(image_size=32), tokenizer=tokenizer)
    whole.save(tmp_path / "a")
    whole.save(tmp_path / "a", dtype=torch.int8)  # what others would read is replaced
    assert json.loads((tmp_path / "a" / "config.json").read_text())["model_type"] == "diptych-clip"
    assert not (tmp_path / "a" / "open_clip_config.json").exists()
    stored = Bundle.load(tmp_path / "a")
    assert (whole.encode_texts(["a kite"]) * stored.encode_texts(["a kite"])).sum() > 0.99
    stored.save(tmp_path / "again", dtype=torch.float32)
    assert Bundle.load(tmp_path / "again").fingerprint() == stored.fingerprint()
    with pytest.raises(ConfigError, match="open_clip opens no weights in 8 bits"):
        whole.save(tmp_path / "b", dtype=torch.int8, layout="open_clip")
    others: tuple[Format, ...] = ("huggingface", "open_clip", "openai")
    for format_ in others:
        with pytest.raises(ConfigError, match=f"{format_} has no weights in 8 bits"):
            save_as(whole, tmp_path / "b.pt", format=format_, dtype=torch.int8)
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "b.pt").exists()


def test_tower_and_tokenizer_must_agree_on_the_padding(bundle):
    other = Tokenizer(word_piece()._backend, context_length=16, pad_token_id=1)
    with pytest.raises(ConfigError, match=r"must have the same padding\. Got 0 and 1"):
        Bundle(model=bundle.model, preprocess=bundle.preprocess, tokenizer=other)


def test_no_other_library_has_such_a_model(bundle, tmp_path):
    refused: tuple[tuple[Format, str], ...] = (
        ("huggingface", "EfficientNet-Lite and sentence towers"),
        ("open_clip", "Got efficientnet-lite and sentence with a softmax head.* keep any other as a bundle"),
        ("openai", "Got efficientnet-lite and sentence with a softmax head"),
    )
    for format_, message in refused:
        with pytest.raises(ConfigError, match=message):
            save_as(bundle, tmp_path / "x.pt", format=format_)


def test_the_file_says_what_it_is(bundle, tmp_path: Path):
    bundle.save(tmp_path / "a", dtype=torch.int8)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("diptych-clip", "int8")
    assert config["model"]["image"]["kind"] == "efficientnet-lite"
