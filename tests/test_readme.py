"""What README and docs show, runs: the Python, the commands, the recipe, the links; and no number is left open.

Every block of every page is of a kind that its language names: `python`; `toml` and `json`; `bash`, for a server that
test_serve.py starts; `text`, which nobody types; and commands without a language, one a line. Python and commands run
here, page by page from top to bottom, unless the line before the block says `<!-- not run: WHY -->`. What is not run is
still parsed.
"""

import contextlib
import dataclasses
import gzip
import json
import re
import shlex
import shutil
import subprocess
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cyclopts
import pytest
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel

from diptych.audit.probes import OwnProbes
from diptych.audit.wording import WordingTable
from diptych.captions.match import Match
from diptych.captions.repeated_texts import RepeatedTexts
from diptych.cli.main import app, main
from diptych.crawl.fetch_options import Fetch
from diptych.crawl.read import PairSource
from diptych.curate.decontaminate import Decontaminate
from diptych.curate.recipe import BalanceOptions, CurateRecipe, read_curate_recipe
from diptych.curate.scores import BestShare, ClipScore
from diptych.data.embedded import HELD_OUT, data_path
from diptych.data.images import Preprocess
from diptych.data.tokenizer import Tokenizer
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.pairs.pipeline import captions_of
from diptych.pairs.shards import ShardSet
from diptych.torch_runtime import generator
from diptych.train.recipe import TrainRecipe
from diptych.weights.bundle import Bundle
from diptych.weights.convert import save_as
from diptych.weights.packaged import DEFAULT_MODEL, packaged_models
from diptych.weights.registry import list_models

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "images" / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
# The same command, at a size that takes seconds.
SMALL = ["train.steps=2", "train.batch_size=4", "model.image.width=4", "model.image.heads=2", "evaluate=[]"]

# Pages below docs/ whose blocks run from top to bottom; those that go on with what train.md left; those that take long.
HOW_TO = (
    "assistants",
    "classify",
    "compare",
    "embed",
    "evaluate",
    "export",
    "install",
    "overlap",
    "probe",
    "prompts",
    "python",
    "search",
    "where",
)
QUICK = (*(f"how-to/{name}.md" for name in HOW_TO), "scale.md")
STORY = ("how-to/resume.md", "how-to/data.md", "how-to/watch.md")
SLOW = ("how-to/audit.md", "how-to/suite.md", "how-to/tasks.md", "how-to/fine-tune.md")

needs_default_model = pytest.mark.skipif(
    all(model.name != DEFAULT_MODEL for model in list_models()), reason=f"{DEFAULT_MODEL} is not in the package yet"
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str  # why; empty where it runs

    @property
    def commands(self) -> list[str]:
        """Lines of a block of commands without comments, prompts, and what a shell makes of the output."""
        lines = self.text.splitlines() if not self.language else []
        lines = [re.split(r" [|>] ", line.split("  #")[0])[0].strip() for line in lines]
        return [line for line in lines if line]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^(?:<!-- not run: (.+) -->\n)?```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text[: match.start(2)].count("\n") + 1, match[2], match[3], match[1] or "") for match in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for kind, content in found if kind == language]


def shell_lines(text: str, program: str) -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks(text, "") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


def run_page(page: Path, *, small: list[str] | None = None) -> None:
    """Its commands and its Python, from top to bottom."""
    for block in blocks_of(page):
        if block.not_run:
            continue
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), {})
        for command in block.commands:
            run(command, options=small if command.startswith("diptych train ") else None)


def run(command: str, *, options: list[str] | None = None) -> None:
    _, *words = shlex.split(command)
    assert main([*words, *(word for option in options or () for word in ("--set", option))]) == 0, command


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the pictures, labels, captions and recipes that README and docs speak of."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("*.py", "__*"))
    shutil.copytree(EXAMPLES, tmp_path / "docs" / "images" / "examples")
    for folder, name in (("photos", "apple"), ("more", "apple"), ("animals/red_panda", "1"), ("animals/barn_owl", "1")):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(EXAMPLES / "red-apple.png", tmp_path / folder / f"{name}.png")
    for folder, name in (("shapes/apple", "red-apple"), ("shapes/boat", "sailboat")):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            shutil.copy(EXAMPLES / f"{name}.png", tmp_path / folder / f"{number}.png")
    for split in ("train", "test"):
        for number in range(6):
            for colour in ("red", "blue"):
                (tmp_path / "splits" / split / colour).mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (64, 60 + number), colour).save(tmp_path / "splits" / split / colour / f"{number}.png")
    shutil.copytree(tmp_path / "splits", tmp_path / "DATA" / "cifar10")
    shutil.copytree(tmp_path / "shapes", tmp_path / "new-task")
    (tmp_path / "SST-2").mkdir()
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\na joy\t1\na bore\t0\n")
    shutil.copy(EXAMPLES / "red-apple.png", tmp_path / "more" / "apple.jpg")
    shutil.copy(EXAMPLES / "sailboat.png", tmp_path / "photos" / "boat.png")
    (tmp_path / "labels.txt").write_text("a red apple\na sailboat\n")
    (tmp_path / "captions.csv").write_text('apple.png,"a red apple, ripe"\nboat.png,a sailboat at sea\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    return tmp_path


@needs_default_model
def test_the_python_of_the_readme_names_the_picture(workplace: Path, capsys: pytest.CaptureFixture[str]):
    [code] = blocks(README, "python")
    assert len([line for line in code.splitlines() if line]) == 5
    exec(compile(code, "README.md", "exec"), {})
    chances = {label: int(share) for share, label in re.findall(r"(\d+)% (.+)", capsys.readouterr().out)}
    assert max(chances, key=chances.__getitem__) == "a sailboat"


@needs_default_model
@pytest.mark.parametrize("command", shell_lines(README, "diptych"))
def test_a_command_of_the_readme_runs(workplace: Path, command: str, capsys: pytest.CaptureFixture[str]):
    run(command, options=SMALL if command.split()[1] == "train" else None)
    assert capsys.readouterr().out
    words = shlex.split(command)
    assert "--out" not in words or (workplace / words[words.index("--out") + 1]).stat().st_size


@needs_default_model
@pytest.mark.parametrize("page", QUICK)
def test_a_page_runs_from_top_to_bottom(workplace: Path, page: str, capsys: pytest.CaptureFixture[str]):
    run_page(DOCS / page)
    assert capsys.readouterr().out


@pytest.mark.slow
@needs_default_model
@pytest.mark.parametrize("page", SLOW)
def test_a_page_that_takes_long_runs_from_top_to_bottom(workplace: Path, page: str, capsys: pytest.CaptureFixture[str]):
    shutil.copytree(packaged_models()["diptych-pictogram-small"], workplace / "runs" / "mine" / "bundle")
    run_page(DOCS / page)
    assert capsys.readouterr().out


def test_published_weights_are_converted_as_the_page_says(workplace: Path, capsys: pytest.CaptureFixture[str]):
    """With a model of CLIP's vocabulary, and merges that are as many as CLIP's."""
    symbols = sorted(ByteLevel.alphabet())
    lines = "\n".join(["#version: 0.2", *(f"{first} {second}" for first in symbols for second in symbols)])
    (workplace / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(lines.encode()))
    config = preset("tiny-vit")
    text = dataclasses.replace(config.text, vocab_size=49_408, context_length=77, width=64, heads=1)
    config = dataclasses.replace(config, text=text, image=dataclasses.replace(config.image, width=64, heads=1))
    tokenizer = Tokenizer.from_merges(workplace / "bpe_simple_vocab_16e6.txt.gz")
    bundle = Bundle(model=CLIP(config, generator(0)).eval(), preprocess=Preprocess(image_size=32), tokenizer=tokenizer)
    save_as(bundle, workplace / "converted", format="open_clip")
    shutil.copy(workplace / "converted" / "open_clip_model.safetensors", workplace)
    run_page(DOCS / "how-to" / "published-weights.md")
    assert "my-clip" in capsys.readouterr().out


def test_every_block_that_runs_is_on_a_page_that_is_run():
    by_hand = {
        "README.md",
        "how-to/train.md",
        "how-to/curate.md",
        *STORY,
        "how-to/serve.md",
        "how-to/published-weights.md",
    }
    run_somewhere = {*QUICK, *SLOW, *by_hand}
    for block in BLOCKS:
        if not block.not_run and (block.commands or block.language in ("python", "bash")):
            name = block.page.relative_to(DOCS if DOCS in block.page.parents else ROOT).as_posix()
            assert name in run_somewhere, f"{block} is neither run nor marked"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_of_its_kind(block: Block):
    match block.language:
        case "python":
            compile(block.text, str(block), "exec")
        case "toml":
            content = tomllib.loads(block.text)
            of_audits = WordingTable if "wording" in content else OwnProbes
            kind = {"curate": CurateRecipe, "audit": of_audits}.get(block.page.stem, TrainRecipe)
            assert unknown_keys(kind, content) == []
        case "json":
            json.loads(block.text)
        case "":
            assert block.commands
            for command in block.commands:
                check_command(command, block)
        case _:
            assert block.language == "text" or (block.language, block.page.name) == ("bash", "serve.md")


INLINE = [
    (page, command)
    for page in PAGES
    for command in re.findall(r"`(diptych (?!COMMAND)[^`]*--[^`]+)`", page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("page", "command"), INLINE, ids=lambda one: one if isinstance(one, str) else one.stem)
def test_options_that_a_sentence_names_are_the_command_s(page: Path, command: str):
    # A sentence may leave out what is not its point, and say FORMAT for one of several.
    with contextlib.suppress(cyclopts.MissingArgumentError, cyclopts.CoercionError):
        app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def check_command(command: str, block: Block) -> None:
    program, *words = shlex.split(command)
    if program == "diptych":
        app.parse_args(words, exit_on_error=False, print_error=False)
    elif program == "torchrun":
        app.parse_args(words[words.index("diptych") + 1 :], exit_on_error=False, print_error=False)
    else:
        assert program in ("make", "pip", "python", "hf")
        assert block.not_run, f"{block}: {command} must run, or be marked"


def unknown_keys(hint: Any, value: Any, where: str = "") -> list[str]:
    """Keys of a part of a recipe that no dataclass of the hint has."""
    if isinstance(value, list):
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
        return [key for one in value for key in unknown_keys(inner, one, where)]
    if not isinstance(value, dict) or ":" in str(value.get("kind", "")):  # code from outside has options of its own
        return []
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    hints: dict[str, Any] = {"kind": str}
    for option in filter(dataclasses.is_dataclass, options):
        hints |= typing.get_type_hints(option)
    unknown = [f"{where}{key}" for key in value if key not in hints]
    return unknown + [
        key for name, one in value.items() if name in hints for key in unknown_keys(hints[name], one, f"{where}{name}.")
    ]


def test_a_key_that_no_recipe_has_is_seen():
    assert unknown_keys(TrainRecipe, {"train": {"stesp": 1}, "data": {"sources": [{"pth": "a"}]}}) == [
        "train.stesp",
        "data.sources.pth",
    ]


def test_the_how_to_on_training_leads_to_a_model(workplace: Path):
    text = (DOCS / "how-to" / "train.md").read_text(encoding="utf-8")
    [pack], [recipe, *_] = blocks(text, "python"), blocks(text, "toml")
    exec(compile(pack, "train.md", "exec"), {})
    Path("my-recipe.toml").write_text(recipe, encoding="utf-8")
    told = [block.text for block in blocks_of(DOCS / "how-to" / "train.md") if not block.language and not block.not_run]
    plain, other = [line for line in "".join(told).splitlines() if line.startswith("diptych ")]
    run(plain, options=SMALL)
    written = {path.name for path in Path("runs/mine").iterdir() if not path.name.startswith(".")}
    assert written == {"recipe.toml", "log.jsonl", "checkpoints", "bundle", "results.json"}
    run(other, options=SMALL)
    for page in STORY:  # what comes after: how it went on, what was drawn, how it is watched
        run_page(DOCS / page, small=SMALL)


def test_the_how_to_on_curation_leads_to_shards(workplace: Path, capsys: pytest.CaptureFixture[str]):
    text = (DOCS / "how-to" / "curate.md").read_text(encoding="utf-8")
    Path("my-set.toml").write_text(blocks(text, "toml")[0], encoding="utf-8")
    run_page(DOCS / "how-to" / "curate.md")
    assert "27 pairs -> " in capsys.readouterr().out
    assert len(ShardSet(Path("curated/shards"))) == 27


def test_the_whole_recipe_of_curation_has_the_defaults(workplace: Path):
    whole = blocks((DOCS / "how-to" / "curate.md").read_text(encoding="utf-8"), "toml")[1]
    Path("whole.toml").write_text(whole, encoding="utf-8")
    shown, told = read_curate_recipe(Path("whole.toml")), tomllib.loads(whole)
    plain = CurateRecipe(
        sources=(PairSource(path=shown.sources[0].path),),
        repeated=RepeatedTexts(),
        match=Match(queries=shown.match.queries if shown.match else ""),
        balance=BalanceOptions(),
        overlap=Decontaminate(data=shown.overlap.data if shown.overlap else ()),
        score=ClipScore(),
        best=BestShare(),
        fetch=Fetch(contact=told["fetch"]["contact"]),
    )
    assert shown == plain


def test_make_targets_exist():
    targets = {line.split()[1] for line in shell_lines(README, "make")}
    assert targets == {"demo", "test"}
    named = {target for page in PAGES for target in re.findall(r"`make ([\w-]+)`", page.read_text(encoding="utf-8"))}
    rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets | named <= set(rules)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_makefile_is_sound():
    for target in ("demo", "test"):  # prints what would be run, and runs nothing
        subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_within_the_project_lead_somewhere(page: Path):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    named = {extra for text in texts for group in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in group.split(",")}
    assert {"train", "eval"} <= named <= extras.keys()


def test_the_data_card_counts_what_the_build_counted():
    folder = ROOT / "src" / "diptych_pictograms" / "pictograms"
    build = json.loads((folder / "BUILD.json").read_text(encoding="utf-8"))
    card = (DOCS / "data-card.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .+ \| `([\w-]+)` \| .+ \| ([\d,]+) \|$", card, re.MULTILINE)
    assert dict(rows) == {name: f"{count:,}" for name, count in {**build["sets"], "twemoji": build["held_out"]}.items()}
    assert f"| training pairs | {build['training']:,}:" in card
    copies = sum(count for cause, count in build["dropped"].items() if "near copy" in cause)
    assert f"| near copy of a held-out picture | {copies} |" in card
    for name, version in build["packages"].items():
        assert f"`{name}` {version}" in card


def test_the_data_card_counts_the_captions():
    card = (DOCS / "data-card.md").read_text(encoding="utf-8")
    sets = {name: ShardSet(data_path(f"embedded:{name}")) for name in ("emoji", "icons")}
    captions = {name: [captions_of(pairs[i]) for i in range(len(pairs))] for name, pairs in sets.items()}
    emoji, icons = captions["emoji"], captions["icons"]
    assert f"{len(emoji):,} emoji (`embedded:emoji`), {len(icons):,} icons (`embedded:icons`)" in card
    assert f"{sum(len(lines) == 2 for lines in emoji):,} of the {len(emoji):,} have tags" in card
    trained = {lines[0] for lines in emoji + icons}
    names = (data_path(HELD_OUT) / "classnames.txt").read_text(encoding="utf-8").splitlines()
    assert f"{sum(name in trained for name in names):,} of the {len(names):,} held-out names" in card


def test_no_number_is_left_open():
    assert [page.name for page in PAGES if "TODO" in page.read_text(encoding="utf-8")] == []
