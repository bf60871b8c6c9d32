"""outside.py, and all that a recipe names from a package which diptych does not know: `tests/outside/mypackage`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.cli.main import main
from diptych.config import from_dict, to_dict, to_toml
from diptych.errors import ConfigError, DiptychError, ShapeError, WeightsError
from diptych.model.clip import CLIP, CLIPConfig
from diptych.outside import import_kinds, named
from diptych.torch_runtime import generator
from diptych.train.checkpoint import Checkpoint
from diptych.train.devices import find_device
from diptych.train.plan import Plan, Setup, plan_run
from diptych.train.recipe import read_recipe, recipe_of
from diptych.train.trainer import train
from diptych.train.watch import WatchedRun
from diptych.weights.registry import load_in_torch
from processes import run_ranks
from runs import assert_same_run, change, furthest, learn, train_in_two_parts, vit

OUTSIDE = Path(__file__).parent / "outside"
RECIPE = OUTSIDE / "recipe.toml"
PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "extend.md"
TEXT = {"context_length": 16, "vocab_size": 530, "width": 16, "layers": 1, "heads": 2}


def diptych(*words: object, path: Path | None = OUTSIDE, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which has the package where it is asked for."""
    folders = [*map(str, [path] if path else []), *sys.path]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, "-m", "diptych", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=False)


@pytest.fixture
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where the package is installed; nothing of it is imported yet, nor after."""
    monkeypatch.syspath_prepend(OUTSIDE)
    forget()
    yield
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("mypackage", "theirs")]:
        del sys.modules[name]


def write_theirs(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module `theirs.code`."""
    (folder / "theirs").mkdir()
    (folder / "theirs" / "code.py").write_text(code)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is installed as any other."""
    source, target = tmp_path_factory.mktemp("source") / "outside", tmp_path_factory.mktemp("installed")
    shutil.copytree(OUTSIDE, source, ignore=shutil.ignore_patterns("__pycache__"))  # a build leaves things behind
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target)]
    command = [sys.executable, "-m", "pip", "install", "-q", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of a run by the command. Not to be written to."""
    out = tmp_path_factory.mktemp("outside") / "run"
    return out, diptych("train", RECIPE, "--out", out, path=installed)


def test_a_recipe_alone_brings_all_that_may_be_brought(
    trained,
):
    out, done = trained
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["learning_rate"] for line in lines] == [1e-3, 1e-3, 1e-3]  # a cosine would fall
    assert lines[-1]["pairs"] == 48
    first, *tracked = (out / "lines.txt").read_text().splitlines()
    assert first == "outside from step 0"
    assert [json.loads(line) for line in tracked] == lines
    heads = json.loads((out / "bundle" / "objectives.json").read_text())["objectives"]
    assert heads == [{"kind": "mypackage.heads:FirstToken", "weight": 0.5}]  # that of the hinge has no parameters
    config = json.loads((out / "bundle" / "config.json").read_text())
    assert config["model"]["image"] == {"kind": "mypackage.towers:ColourConfig", "image_size": 32}


def test_a_run_that_was_stopped_goes_on_to_the_same_end_and_its_checkpoints_name_all(on_the_path, tmp_path):
    recipe = read_recipe(RECIPE)
    train(recipe, tmp_path / "whole")
    train_in_two_parts(recipe, tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    assert "outside from step 3" in (tmp_path / "parts" / "lines.txt").read_text()
    saved = json.loads((tmp_path / "whole" / "checkpoints" / "step-00000006" / "training.json").read_text())["recipe"]
    assert saved["train"]["optimizer"] == "mypackage.optim:SignMomentum"
    assert saved["data"]["augment"] == {"kind": "mypackage.augment:Negative", "chance": 0.25}


def planned(plain: dict[str, Any], **train: Any) -> Plan:
    import_kinds(plain := {**plain, "train": {**plain["train"], **train}})
    return plan_run(recipe_of(plain), Setup(device=find_device("a100-40gb"), precision="bfloat16"))


def test_a_plan_counts_what_is_somebody_elses(on_the_path, tmp_path):
    plan = planned(plain_recipe({}))
    assert (plan.flops["image"], plan.flops["heads"]) == (6 * 16, 2 * 16 * 530)
    assert plan.memory["optimizer"] == 4 * plan.parameters["total"]  # one momentum; AdamW has two
    assert plan.notes == ("what the loss of mypackage.losses:Hinge takes is counted as that of the contrastive one",)
    train(recipe_of(plain_recipe({})), tmp_path)
    saved = Checkpoint.load(tmp_path / "checkpoints" / "step-00000006").optimizer
    kept = sum(value.nbytes for name, value in saved.items() if name.endswith(".momentum"))
    assert kept == plan.memory["optimizer"]


LOOKS = """
import torch
class Looks(torch.optim.SGD):
    def __init__(self, groups, *, betas, epsilon):
        super().__init__(groups, lr=0.0)
    def step(self):
        assert all(p.grad.norm() > 0 for group in self.param_groups for p in group["params"])
"""


def test_a_plan_says_what_it_cannot_count(on_the_path, tmp_path, monkeypatch, capsys):
    write_theirs(LOOKS, tmp_path, monkeypatch)
    plan = planned(plain_recipe({}), optimizer="theirs.code:Looks")
    assert plan.memory["optimizer"] == 0
    assert plan.notes[-1] == "what theirs.code:Looks keeps is not counted, as its step looks at numbers"
    assert main(["plan", str(RECIPE), "--device", "a100-40gb", "--set", "train.optimizer=theirs.code:Looks"]) == 0
    assert plan.notes[-1] in capsys.readouterr().out


# Counts of its own, in the state and in a group; a second tensor of another size; AdamW's rate grows with them.
COUNTS = """
import torch
class Counts(torch.optim.AdamW):
    def __init__(self, groups, *, betas, epsilon):
        super().__init__(groups, betas=betas, eps=epsilon)
        for group in self.param_groups:
            group["seen"] = 0
    def step(self, closure=None):
        for group in self.param_groups:
            group["seen"] += 1
            for parameter in group["params"]:
                state = self.state[parameter]
                if state:
                    state["mine"] = state.get("mine", 0) + 1
                    state["share"] = 0.1 + state.get("share", 0.0)
                    state["row"] = state.get("row", torch.zeros(3)) + 1
                    total = group["seen"] + state["mine"] + state["share"] + state["row"].sum().item()
                    group["lr"] *= 1 + 0.01 * total
        super().step()
"""


def test_all_that_an_optimizer_keeps_comes_back(on_the_path, tmp_path, monkeypatch):
    write_theirs(COUNTS, tmp_path, monkeypatch)
    plain = plain_recipe({"train.optimizer": "theirs.code:Counts"})
    import_kinds(plain)
    recipe = recipe_of(plain)
    train(recipe, tmp_path / "whole")
    train_in_two_parts(recipe, tmp_path / "parts")
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_what_an_optimizer_keeps_that_cannot_be_saved_is_told(on_the_path, tmp_path, monkeypatch):
    write_theirs(COUNTS.replace('state["mine"] = ', 'state["list"] = []; state["mine"] = '), tmp_path, monkeypatch)
    plain = plain_recipe({"train.optimizer": "theirs.code:Counts"})
    import_kinds(plain)
    with pytest.raises(ConfigError, match=r"must keep tensors and numbers alone .* Got list: list\."):
        train(recipe_of(plain), tmp_path / "run")


def learn_hinge(recipe: Path, out: Path) -> None:
    """In each of several processes, which have the package on their path too."""
    sys.path.insert(0, str(OUTSIDE))
    learn(recipe, out, True)


@pytest.mark.parametrize(("count", "options"), [(2, {}), (2, {"parallel": "fsdp"}), (4, {"micro_batch_size": 1})])
def test_several_processes_learn_a_loss_of_somebody_elses_as_one_does(
    count, options, on_the_path, tiny_recipe, tmp_path
):
    plain = to_dict(vit(tiny_recipe, steps=12, checkpoint_every=100))
    plain["train"]["objectives"] = [{"kind": "mypackage.losses:Hinge"}, {"kind": "mypackage.heads:FirstToken"}]
    import_kinds(plain)
    recipe = recipe_of(plain)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    learn(tmp_path / "recipe.toml", tmp_path / "alone", True)
    (tmp_path / "recipe.toml").write_text(to_toml(change(recipe, **options)))
    run_ranks(learn_hinge, count, tmp_path / "recipe.toml", tmp_path / "run")
    assert furthest(tmp_path / "run", tmp_path / "alone") < 1e-9


def test_a_bundle_imports_nothing_by_being_loaded(trained):
    out, _ = trained
    for words in (
        ("models", "show", out / "bundle"),
        ("evaluate", "zero-shot", "--model", out / "bundle"),
    ):
        done = diptych(*words)
        assert done.returncode == 2
        assert "mypackage.towers:ColourConfig, and reading a file imports none" in done.stderr
        assert "set DIPTYCH_ALLOW_CODE=mypackage.towers" in done.stderr
    allowed = diptych("models", "show", out / "bundle", DIPTYCH_ALLOW_CODE="mypackage.towers")
    assert "mean colour; text: 1 layers of 16" in allowed.stdout
    done = diptych("models", DIPTYCH_ALLOW_CODE="no_such_module")
    assert "DIPTYCH_ALLOW_CODE names the module no_such_module, which cannot be imported" in done.stderr


def test_a_bundle_opens_where_its_module_is_imported(trained, on_the_path):
    out, _ = trained
    with pytest.raises(WeightsError, match=r"model\.image\.kind names code that is not diptych's"):
        load_in_torch(out / "bundle")
    assert "mypackage" not in sys.modules
    named("mypackage.towers:ColourConfig", "here")
    assert load_in_torch(out / "bundle").encode_texts(["a red square"]).shape == (1, 16)


def test_who_watches_a_run_imports_nothing(trained, on_the_path):
    run = WatchedRun(trained[0])
    run.update(0.0)
    assert (run.state, run.recipe) == ("finished", None)
    assert "mypackage" not in sys.modules


@pytest.mark.parametrize("kind", ["os:path", "subprocess:Popen", "pathlib:Path", "diptych.data.images:Preprocess"])
def test_what_is_imported_anyway_is_not_had_by_its_name(kind: str):
    plain = {"embed_dim": 16, "image": {"kind": kind}, "text": TEXT}
    with pytest.raises(ConfigError, match=f'image.kind names {kind}, which must be a dataclass with `kind: str = "'):
        from_dict(CLIPConfig, plain)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mypackage.towers", 'x must be named as "module:name"'),
        ("my package:f", 'x must be named as "module:name"'),
        (
            "mypackage.no:f",
            r"module mypackage\.no, which cannot be imported: No module named 'mypackage\.no'",
        ),
        (
            "mypackage.towers:no",
            r"x names mypackage\.towers:no, and the module .* has nothing of that name",
        ),
        ("mypackage.data:COLOURS", r"must be a function or a class\. Got tuple"),
        ("theirs.code:f", r"cannot be imported: division by zero\. Install its package"),
    ],
)
def test_a_name_that_leads_to_nothing_is_one_sentence(name: str, message: str, on_the_path, tmp_path, monkeypatch):
    write_theirs("1 / 0", tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=message) as found:
        named(name, "x")
    assert "\n" not in str(found.value)


def test_kinds_are_imported_wherever_a_recipe_has_them_and_nothing_else_is(on_the_path):
    import_kinds({"a": [{"kind": "mypackage.data:Squares"}], "path": "os:no", "b": {"kind": "vit"}})
    assert "mypackage.data" in sys.modules
    with pytest.raises(ConfigError, match=r"a\.b\.kind names the module nothing_here"):
        import_kinds({"a": {"b": {"kind": "nothing_here:f"}}})


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "source": (
        "class Opened:\n    def __init__(self, path): pass\n    __len__ = check = fingerprint = key = captions = 0",
        {"data.sources": [{"kind": "theirs.code:Opened", "path": "x"}]},
        r"the source theirs\.code:Opened must have .* That of Opened has no __getitem__",
    ),
    "empty source": (
        "from mypackage.data import *\nclass Opened(Squares):\n    def __len__(self): return 0",
        {"data.sources": [{"kind": "theirs.code:Opened", "path": "x"}]},
        r"must have at least one pair, and shard_ends must end with their number\. Got 0 pairs and shard_ends=\[8\]",
    ),
    "augmentation": (
        "import numpy\nfrom mypackage.augment import *\n@dataclass(frozen=True, kw_only=True)\nclass Small:\n"
        "    kind: str = 'theirs.code:Small'\n    is_fixed = False\n"
        "    def __call__(self, *_): return numpy.zeros((8, 8, 3), numpy.uint8)",
        {"data.augment": {"kind": "theirs.code:Small"}},
        r"data\.augment must return \[S, S, 3\] = \[32, 32, 3\] uint8\. Got \[8, 8, 3\] uint8",
    ),
    "optimizer": (
        "def made(groups, *, betas, epsilon): return 3",
        {"train.optimizer": "theirs.code:made"},
        r"theirs\.code:made must return a torch\.optim\.Optimizer\. Got int",
    ),
    "groups": (
        "import torch\ndef made(groups, *, betas, epsilon):\n"
        "    return torch.optim.SGD([p for g in groups for p in g['params']])",
        {"train.optimizer": "theirs.code:made"},
        r"must keep the groups that it is given, with their rate_factor",
    ),
    "schedule": (
        "def rate(step, *, peak, warmup_steps, steps): return -1.0",
        {"train.schedule": "theirs.code:rate"},
        r"theirs\.code:rate must return a finite learning rate of at least 0\. Got -1\.0 at step 0",
    ),
    "tracker": ("Lines = 3", {"train.trackers": ["theirs.code:Lines"]}, r"must be a function or a class\. Got int"),
}


# What an objective of somebody else's does otherwise than `mypackage.losses:Hinge`, or than `FirstToken` and its head.
CLASS = "@dataclass(frozen=True, kw_only=True)\nclass Mine({}):\n    kind: str = 'theirs.code:Mine'\n    "
BATCH = "from mypackage.losses import *\n" + CLASS.format("Hinge")
SAMPLE = "from mypackage.heads import *\n" + CLASS.format("FirstToken")
HEAD = SAMPLE + "def build(self, model, tokenizer): return Head(model)\nclass Head(FirstTokenHead):\n    "
WRONG_OBJECTIVES = {
    "vector": (
        BATCH + "def loss(self, f, t): return f.image_features.sum(dim=1)",
        r"one number.* Got \[8\]",
    ),
    "no tensor": (
        BATCH + "def loss(self, f, t): return 3.0",
        r"must return one number, .* Got float",
    ),
    "constant": (BATCH + "def loss(self, f, t): return torch.ones(())", r"Mine must return a loss that depends on the"),
    "no loss": (BATCH + "loss = property()", r"objective theirs\.code:Mine must have loss .* Mine has no loss"),
    "neither": (BATCH + "is_per_sample = None", r"is_per_sample of theirs\.code:Mine must be True or False\. Got None"),
    "unknown need": (
        BATCH + "def needs(self, model): return {'pixels'}",
        r"no more than image_features, .* pixels",
    ),
    "too much": (BATCH + "def needs(self, model): return {'tokens'}", r"or be per sample\. Got tokens"),
    "no weight": (BATCH + "weight: float = 0.0", r"weight must be above 0\. Got 0\.0 of theirs\.code:Mine"),
    "no rows": (SAMPLE + "def needs(self, model): return {'word_rows'}", r"needs word_rows, which a .* has none of"),
    "no tokens": (
        SAMPLE + "def needs(self, model): return {'image_tokens'}",
        r"needs image tokens, and .* gives none",
    ),
    "no cost": (SAMPLE + "cost = property()", r"objective theirs\.code:Mine must have .* Mine has no cost"),
    "no module": (SAMPLE + "def build(self, model, tokenizer): return 3", r"must give a torch module\. Got int"),
    "no scores": (HEAD + "scores = property()", r"the head of theirs\.code:Mine must have .* Head has no scores"),
    "left out": (HEAD + "def reset_parameters(self, *_): pass", r"`reset_parameters` of the head .* rows was left out"),
    "sum": (
        HEAD + "def forward(self, seen): return self.rows.sum()",
        r"a loss for each pair, .* \[8\]\. Got \[\]",
    ),
}


@pytest.mark.parametrize("fault", WRONG_OBJECTIVES)
def test_an_objective_that_is_none_is_told_before_the_first_step(fault, on_the_path, tmp_path, monkeypatch):
    code, message = WRONG_OBJECTIVES[fault]
    write_theirs(code, tmp_path, monkeypatch)
    plain = plain_recipe({})
    plain["train"]["objectives"] = [{"kind": "theirs.code:Mine"}]
    import_kinds(plain)
    with pytest.raises(DiptychError, match=message) as found:
        train(recipe_of(plain), tmp_path / "run")
    assert "\n" not in str(found.value)


SEAMS = {
    "objective": 'train.objectives=[{{kind="{}"}}]',
    "tower": 'model.image.kind="{}"',
    "source": 'data.sources=[{{path="true",kind="{}"}}]',  # `os.system` takes one string too, and this one does nothing
    "augmentation": 'data.augment={{kind="{}"}}',
    "optimizer": 'train.optimizer="{}"',
    "schedule": 'train.schedule="{}"',
    "tracker": 'train.trackers=["{}"]',
}


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("name", ["os:system", "theirs.code:Thing", "theirs.other:Thing", "theirs.other:No", "theirs"])
def test_a_wrong_name_at_any_seam_is_one_line_of_the_command(
    seam, name, on_the_path, tmp_path, monkeypatch, capfd: pytest.CaptureFixture[str]
):
    write_theirs("raise SystemExit('not today')", tmp_path, monkeypatch)
    (tmp_path / "theirs" / "other.py").write_text("class Thing: pass")
    assert main(["train", str(RECIPE), "--out", str(tmp_path / "run"), "--set", SEAMS[seam].format(name)]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    reason = "data.augment.kind" if (seam, name) == ("augmentation", "theirs") else name
    assert ("which cannot be imported: not today" if "code" in name else reason) in said
    assert not (tmp_path / "run" / "log.jsonl").exists()


def plain_recipe(options: dict[str, Any]) -> dict[str, Any]:
    import tomllib

    plain = tomllib.loads(RECIPE.read_text())
    for name, value in options.items():
        table, _, key = name.rpartition(".")
        plain[table][key] = value
    return plain


@pytest.mark.parametrize("seam", WRONG)
def test_what_does_not_keep_to_its_protocol_is_told_before_the_first_step(seam, on_the_path, tmp_path, monkeypatch):
    code, options, message = WRONG[seam]
    write_theirs(code, tmp_path, monkeypatch)
    plain = plain_recipe(options)
    import_kinds(plain)
    with pytest.raises(ConfigError, match=message):
        train(recipe_of(plain), tmp_path / "run")


def towers_of(change: Callable[[Any], None]) -> CLIPConfig:
    """A model with the tower of the package, which was changed."""
    kind = "mypackage.towers:ColourConfig"
    cls = named(kind, "here")
    change(cls)
    return from_dict(CLIPConfig, {"embed_dim": 16, "image": {"kind": kind}, "text": TEXT})


def test_a_tower_that_lacks_something_is_told_what(on_the_path):
    with pytest.raises(ConfigError, match=r"a config of image towers must have .* ColourConfig has no patches, cost"):
        towers_of(lambda cls: (delattr(cls, "patches"), delattr(cls, "cost")))
    forget()
    config = towers_of(lambda cls: setattr(cls, "build", lambda self, embed_dim: torch.nn.Linear(3, embed_dim)))
    with pytest.raises(ConfigError, match=r"that .* builds must have .* Linear has no trunk, project"):
        CLIP(config)
    forget()
    config = towers_of(lambda cls: setattr(sys.modules["mypackage.towers"].Colour, "reset_parameters", lambda *_: None))
    with pytest.raises(ConfigError, match=r"`reset_parameters` of a tower must fill all its parameters\. projection"):
        CLIP(config, generator(0))


def test_a_tower_of_another_width_is_told(on_the_path):
    wide = lambda self, trunk: (trunk @ self.projection)[:, :7]  # noqa: E731
    config = towers_of(lambda cls: setattr(sys.modules["mypackage.towers"].Colour, "project", wide))
    with pytest.raises(ShapeError, match=r"a tower must give \[B, D\] = \[2, 16\], .* Got \[2, 7\]"):
        CLIP(config, generator(0)).encode_image(torch.zeros(2, 3, 32, 32))


def test_the_page_shows_the_package_as_it_is():
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    files = [path for path in sorted((OUTSIDE / "mypackage").glob("*.py")) if path.name != "__init__.py"]
    assert sorted(shown) == sorted(path.read_text(encoding="utf-8") for path in files)
    assert RECIPE.read_text(encoding="utf-8") in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
