"""What a light install does: in each process here torch cannot be imported, as where it is not installed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WITHOUT = "import sys; sys.modules['torch'] = None; "  # an import of it then fails, and looking for it finds nothing


def python(code: str, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *map(str, words)],
        capture_output=True, text=True, timeout=300, check=False, input=stdin,
    )  # fmt: skip


def diptych(*words: object) -> subprocess.CompletedProcess[str]:
    return python("from diptych.cli.main import main; sys.exit(main())", *words)


SAILBOAT = Path(__file__).parent.parent / "docs" / "images" / "examples" / "sailboat.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (90, 70), colour).save(folder / f"{colour}.png")
    return folder


def test_pictures_are_classified() -> None:
    done = diptych("classify", SAILBOAT, "--labels", "horse", "--labels", "sailboat", "--json")
    assert done.returncode == 0, done.stderr
    labels = json.loads(done.stdout)["images"][0]["labels"]
    assert labels[0]["label"] == "sailboat"
    assert sum(one["probability"] for one in labels) == pytest.approx(1, abs=1e-5)


def test_classes_that_were_learned_are_read(folder: Path, tmp_path: Path) -> None:
    import diptych as package

    model = package.load("diptych-photo")
    weights = 100 * model.encode_images([folder / f"{name}.png" for name in ("red", "blue")])
    bias = np.zeros(2, np.float32)
    probe = package.Probe(labels=("red", "blue"), weights=weights, bias=bias, fingerprint=model.fingerprint(),
                          model="diptych-photo")  # fmt: skip
    probe.save(tmp_path / "classes")
    done = diptych("classify", folder / "blue.png", "--probe", tmp_path / "classes", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"][0]["labels"][0]["label"] == "blue"


def test_pictures_are_embedded_as_torch_embeds_them(folder: Path, tmp_path: Path) -> None:
    import diptych as package

    done = diptych("embed", folder, "--out", tmp_path / "features.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "features.npz") as file:
        keys, features = file["keys"].tolist(), file["features"]
    expected = package.load(engine="torch").encode_images([Path(key) for key in keys])
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_a_folder_is_indexed_searched_and_filtered(folder: Path, tmp_path: Path) -> None:
    index = ("--index", tmp_path / "index")
    done = diptych("index", "update", folder, *index)
    assert done.returncode == 0, done.stderr
    found = diptych("search", "a red wall", folder, *index, "--json")
    assert found.returncode == 0, found.stderr
    assert "red.png" in found.stdout
    (tmp_path / "deny.txt").write_text("red\n")
    done = diptych("filter", folder, "--deny-list", tmp_path / "deny.txt", "--threshold", "-1", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["denied"]) == 3


def test_models_are_listed_and_their_need_is_told() -> None:
    done = diptych("models", "--licence", "mit")
    assert done.returncode == 0, done.stderr
    assert "hf:openai/clip-vit-base-patch32" in done.stdout
    assert done.stdout.endswith("Opening a published model needs torch: pip install 'diptych[torch]'.\n")
    told = json.loads(diptych("models", "--json").stdout)
    assert any(model["name"] == "diptych-photo" for model in told["packaged"])
    assert {model["refusal"] for model in told["published"]} == {None}


def test_python_callers_need_no_torch() -> None:
    code = """
import diptych, numpy as np
clip = diptych.load()
classifier = diptych.ZeroShotClassifier(clip, ["sailboat", "horse"])
assert classifier([sys.argv[1]]).argmax(axis=1).tolist() == [0]
assert diptych.score(clip, [sys.argv[1]], ["sailboat"]).shape == (1,)
index = diptych.Index(clip.encode_texts(["a", "b"]), ["a", "b"])
assert index.search(clip.encode_texts(["b"])[0])[0][0] == "b"
try:
    diptych.load("diptych-photo").in_torch()
except diptych.DiptychError as error:
    print(error)
try:
    diptych.CLIP
except diptych.DiptychError as error:
    print(error)
assert sys.modules["torch"] is None
"""
    done = python(code, SAILBOAT)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "pip install 'diptych[torch]'" in first
    assert "diptych.CLIP" in second


def test_the_server_answers() -> None:
    pytest.importorskip("fastapi")
    code = """
import base64, pathlib
from fastapi.testclient import TestClient
import diptych
from diptych.serve.app import create_app
from diptych.serve.service import Service
import asyncio

data = base64.b64encode(pathlib.Path(sys.argv[1]).read_bytes()).decode()

async def main():
    service = Service(diptych.load(), name="light")
    from diptych.serve.service import Picture
    shares = await service.classify(Picture(data), ["horse", "sailboat"])
    print(max(shares.probabilities, key=shares.probabilities.get))
    assert service.close()

asyncio.run(main())
"""
    done = python(code, SAILBOAT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "sailboat"


@pytest.mark.parametrize(
    ("words", "extra"),
    [(("train", "recipe.toml"), "train"), (("evaluate", "zero-shot"), "eval"), (("where", "a.png", "b"), "torch")],
)
def test_a_command_that_needs_torch_says_which_extra_brings_it(
    words: tuple[str, ...], extra: str, folder: Path
) -> None:
    given = [folder / "red.png" if word == "a.png" else word for word in words]
    done = diptych(*given)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert extra in done.stderr or "recipe.toml" in done.stderr
