"""What README and docs show, runs: the Python, the commands, the recipe, the links; and no number is left open."""

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from diptych.cli.main import main
from diptych.data.embedded import HELD_OUT, data_path
from diptych.pairs.pipeline import captions_of
from diptych.pairs.shards import ShardSet
from diptych.weights.registry import DEFAULT_MODEL, list_models

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "images" / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
# The same command, at a size that takes seconds.
SMALL = ["train.steps=2", "train.batch_size=4", "model.image.width=4", "model.image.heads=2", "evaluate=[]"]

needs_default_model = pytest.mark.skipif(
    all(model.name != DEFAULT_MODEL for model in list_models()), reason=f"{DEFAULT_MODEL} is not in the package yet"
)


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for kind, content in found if kind == language]


def shell_lines(text: str, program: str) -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks(text, "") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


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
@pytest.mark.parametrize("page", ["classify", "compare", "embed", "evaluate", "probe", "prompts", "python", "search"])
def test_a_how_to_runs_from_top_to_bottom(workplace: Path, page: str, capsys: pytest.CaptureFixture[str]):
    text = (DOCS / "how-to" / f"{page}.md").read_text(encoding="utf-8")
    for command in shell_lines(text, "diptych"):
        run(command)
    for number, code in enumerate(blocks(text, "python")):
        exec(compile(code, f"{page}.md, block {number}", "exec"), {})
    assert capsys.readouterr().out


def test_the_how_to_on_training_leads_to_a_model(workplace: Path):
    text = (DOCS / "how-to" / "train.md").read_text(encoding="utf-8")
    [pack], [recipe] = blocks(text, "python"), blocks(text, "toml")
    exec(compile(pack, "train.md", "exec"), {})
    Path("my-recipe.toml").write_text(recipe, encoding="utf-8")
    plain, other = shell_lines(text, "diptych")
    run(plain, options=SMALL)
    written = {path.name for path in Path("runs/mine").iterdir() if not path.name.startswith(".")}
    assert written == {"recipe.toml", "log.jsonl", "checkpoints", "bundle", "results.json"}
    assert "train.batch_size=512" in other


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
    folder = ROOT / "src" / "diptych" / "data" / "pictograms"
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
