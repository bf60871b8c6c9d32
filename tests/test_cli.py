"""Commands as a user calls them: words in; exit code, standard output and standard error out."""

import base64
import contextlib
import dataclasses
import importlib.util
import io
import itertools
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from rich.console import Console

from bundles import make, new_tokenizer
from conftest import COLORS, SHAPES, drawing, png
from diptych.classify import ZeroShotClassifier
from diptych.cli import console, export, models, thumbnails
from diptych.cli import training as training_view
from diptych.cli.console import one_line, print_table
from diptych.cli.main import app, main
from diptych.config import to_toml
from diptych.data.images import Preprocess
from diptych.data.prompts import TEMPLATES
from diptych.data.tokenizer import Tokenizer
from diptych.eval.result_file import read_result, read_results, write_result
from diptych.export import model_folder
from diptych.files import sha256
from diptych.measures.robustness import TRENDS, effective_robustness
from diptych.model.blocks import Activation
from diptych.model.clip import CLIP
from diptych.model.presets import preset
from diptych.probe import Probe
from diptych.search.about import read_about, write_about
from diptych.torch_runtime import generator
from diptych.train.recipe import TrainRecipe
from diptych.train.trainer import StepReport
from diptych.weights import convert, saving
from diptych.weights.bundle import Bundle
from diptych.weights.folder import About
from diptych.weights.open_clip import naming_of
from diptych.weights.packaged import DEFAULT_MODEL
from foreign_tokenizers import FOREIGN, write_tokenizer
from processes import started
from test_house import commands as all_commands
from test_shift import models as models_on_shifts
from toys import nine_kinds

COLOURS = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (40, 60, 210)}
TWO_LABELS = ("--labels", "a cat", "--labels", "a dog")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For models this small, threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    tokenizer = Tokenizer.train(["a red kite", "a blue boat", "a red boat"] * 3, vocab_size=530, context_length=77)
    config = preset("tiny-vit")
    text = dataclasses.replace(config.text, vocab_size=tokenizer.vocab_size, context_length=77)
    config = dataclasses.replace(config, text=text)
    about = About(licence="CC0-1.0", data="nothing: drawn at random")
    model = CLIP(config, generator(0)).eval()
    return Bundle(model=model, preprocess=Preprocess(image_size=32), tokenizer=tokenizer, about=about)


@pytest.fixture(scope="module")
def model(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    bundle.save(folder)
    return str(folder)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three colours, the third one folder deeper."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for place, colour in zip(("red2.png", "green10.png", "deeper/blue.png"), COLOURS.values(), strict=True):
        Image.new("RGB", (40, 30), colour).save(folder / place)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run_


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run what must fail: nothing on standard output, exit code 2, and one line, which is returned."""

    def fails_(*words: object) -> str:
        code, out, err = run(*words)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("diptych: ")
        return err.removeprefix("diptych: ").rstrip("\n")

    return fails_


# The app


def python(script: str, **pipes) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, check=False, timeout=300, **pipes
    )


def test_help_and_typos_do_without_torch():
    script = """
import sys
from diptych.cli.main import app, main
for words in ("--help", "--version", "classify --help", "evaluate zero-shot --help", "clasify", "classify --lables"):
    main(words.split())
print("torch" in sys.modules)
"""
    done = python(script, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False")


def test_help_lists_the_commands_with_their_first_line(run: Run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name in ("classify", "demo", "embed", "evaluate", "models", "train"):
        assert f"│ {name} " in out
    assert "Say which of some labels" in out
    assert run() == (code, out, err)  # no words at all ask for help


def test_help_of_a_command_holds_its_docs(run: Run):
    code, out, _ = run("classify", "--help")
    assert code == 0
    assert "one label alone is always 100 %" in " ".join(out.split())
    assert "--labels-file" in out
    assert "--no-json" not in out
    assert "--empty-labels" not in out


def test_the_module_is_the_command(fails):
    command = [sys.executable, "-m", "diptych", "clasify"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"diptych: {fails('clasify')}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["clasify"],
            "clasify is not a command of diptych. Did you mean classify? Options: audit, caption, classify, curate, ",
        ),
        (["--hepl"], "--hepl is not an option of diptych. Did you mean --help? Options: "),
        (["classify", "--lables=a"], "--lables is not an option. Did you mean --labels? Options: --batch-size, "),
        (["evaluate", "zero-shto"], "zero-shto is not a command of diptych evaluate. Did you mean zero-shot?"),
        (["evaluate", "zero-shot", "x"], "x is more than diptych evaluate zero-shot takes. See diptych evaluate"),
        (["classify", "--top", "many"], 'Invalid value for --top: unable to convert "many" into int. See diptych'),
        (["classify", "--top", "0"], 'Invalid value "0" for --top. Must be > 0. See diptych classify --help.'),
        (["classify", "--json", "--no-json"], "--no-json is not an option."),
        (["embed", "x"], "parameter --out requires an argument. See diptych embed --help."),
    ],
)
def test_a_wrong_word_gets_one_line_and_the_nearest_name(fails, words: list[str], message: str):
    assert message in fails(*words)


def test_a_message_stays_one_line_whatever_the_file_is_called(fails):
    assert fails("classify", "no\nsuch\x1b[31m.png", *TWO_LABELS).startswith("no\\nsuch\\x1b[31m.png must be")
    assert one_line("naïve 猫 🙂\t\udcff") == "naïve 猫 🙂\\t\\udcff"


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "diptych: stopped."),
        (MemoryError(), 2, "diptych: the memory is full. Try a smaller --batch-size or a smaller model."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "diptych: the memory is full. Try a smaller"),
        (OSError(28, "No space left on device", "/somewhere"), 2, "diptych: /somewhere: No space left on device."),
    ],
)
def test_what_stops_a_command_from_outside_gets_one_line(run: Run, pictures, monkeypatch, fault, code: int, line: str):
    monkeypatch.setattr(Bundle, "load", Mock(side_effect=fault))
    result = run("embed", pictures, "--out", pictures / "x.npz", "--model", pictures)
    assert (result[0], result[1], result[2].count("\n")) == (code, "", 1)
    assert result[2].startswith(line)


def test_a_fault_of_ours_keeps_its_traceback(pictures: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bundle, "load", Mock(side_effect=RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["embed", str(pictures), "--out", str(pictures / "x.npz"), "--model", str(pictures)])


VERSION = "import sys; from diptych.cli.main import main; sys.exit(main(['--version']))"


def test_a_reader_that_has_gone_ends_it_quietly():
    read, write = os.pipe()
    os.close(read)
    done = python(VERSION, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


WITH_DAFT = """
import atexit, sys, types
sys.modules["daft"] = types.ModuleType("daft")
class Thread:  # stands for a thread of daft, which asks for the interpreter while that goes
    def __del__(self): print("aborted")
thread = Thread()
atexit.register(print, "put away")
sys.argv = ["diptych", "--no-such-option"]
from diptych.cli.main import run
run()
"""


def test_after_daft_a_process_is_left_before_the_interpreter_goes():
    done = python(WITH_DAFT, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, "put away\n")


def test_whatever_prints_much_ends_quietly_when_its_reader_goes(
    indexed, pictures, model, labelled, monkeypatch, capsys
):
    """As `| head` does. Every command is asked for its help, too."""
    monkeypatch.setenv("DIPTYCH_INDEXES", str(pictures.parent))  # the index lies in it
    place = (*indexed, "--no-update")
    words = [
        ("search", "a boat", *place),
        *(("search", "a boat", *place, f"--{form}") for form in ("json", "csv", "paths", "print0")),
        ("search", "--duplicates", *place, "--threshold", "0.1", "--json"),
        ("index", "status", pictures, *indexed[3:]),
        ("index", "list"),
        ("classify", pictures, *TWO_LABELS, "--model", model),
        ("classify", pictures, *TWO_LABELS, "--model", model, "--json"),
        ("models",),
        ("models", "--json"),
        ("models", "show", model),
        ("evaluate", "tasks"),
        ("evaluate", "zero-shot", "--data", labelled, "--model", model),
        *((*name.split()[1:], "--help") for name, _ in all_commands(app)),
    ]
    for line in words:
        read, write = os.pipe()
        os.close(read)
        capsys.readouterr()
        with monkeypatch.context() as patch, os.fdopen(write, "w") as file:
            patch.setattr(sys, "stdout", file)
            try:
                code = main([str(word) for word in line])
            except SystemExit as end:  # rich's own way
                code = end.code
        assert (code, capsys.readouterr().err) == (1, ""), line


def test_quiet_leaves_the_answer_and_what_ended_it(run: Run, fails, indexed, pictures):
    (pictures / "bad.png").write_text("no picture")
    (pictures / "copy.png").write_bytes((pictures / "red2.png").read_bytes())
    code, out, err = run("--quiet", "search", "--duplicates", *indexed)
    assert (code, len(out.splitlines()), err) == (0, 3, "")
    assert run("search", "a boat", *indexed, "--min-score", 2, "--quiet") == (0, "", "")
    assert fails("search", "0 * truck", *indexed, "--quiet").startswith("a query must look for something")
    assert run("search", "a boat", *indexed, "--min-score", 2)[2] != ""  # the volume is of one command


def test_bars_are_for_terminals_and_not_with_no_progress(run: Run, pictures, model, tmp_path, monkeypatch):
    import diptych.search.library as library

    said = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(library.Library, "update", lambda *args, **named: said.append(console.shows_bars()) or 1 / 0)
    for flags in ((), ("--no-progress",), ("--quiet",)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with contextlib.suppress(ZeroDivisionError):
            main([*flags, "index", "update", str(pictures), "--model", model, "--index", str(tmp_path / "index")])
    assert said == [True, False, False]


def test_no_color_is_followed(model):
    pty = pytest.importorskip("pty")
    colours = re.compile(rb"\x1b\[[0-9;]*(?:3|4|9|10)[0-7](?:;|m)")
    for environment, has_colour in (({"TERM": "xterm-256color"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False)):
        own, end = pty.openpty()
        usual = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        command = [sys.executable, "-m", "diptych", "classify", "--help"]
        with started(command, stdout=end, stderr=end, env=usual | environment) as process:
            os.close(end)
            out = b""
            with contextlib.suppress(OSError):  # the other end has gone
                while chunk := os.read(own, 65536):
                    out += chunk
            assert process.wait() == 0
        os.close(own)
        assert bool(colours.search(out)) == has_colour, environment


def test_completion_is_installed_and_completes(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, err = run("--install-completion", "--shell", "bash")
    script = Path(out.split(" completes ")[0])
    assert (code, err, script.is_file()) == (0, "", True)
    assert str(script) in (tmp_path / ".bashrc").read_text()
    if not shutil.which("bash"):
        pytest.skip("there is no bash to complete in")
    asked = "source $0; COMP_WORDS=(diptych $1 $2); COMP_CWORD=$3; _diptych; echo ${COMPREPLY[@]}"
    for words, expected in ((("sear", "", 1), "search"), (("search", "--min-sc", 2), "--min-score")):
        command = ["bash", "-c", asked, str(script), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.split() == [expected], done.stderr


def test_output_that_the_disk_refuses_gets_one_line(tmp_path: Path):
    with (tmp_path / "out").open("w") as file:
        done = python(VERSION, stdout=file, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)))
    assert (done.returncode, done.stderr) == (2, "diptych: File too large.\n")


def test_a_table_is_set_by_columns_of_the_terminal(capsys: pytest.CaptureFixture[str]):
    print_table([("猫", "5"), ("a\tb", "10")], header=("name", "n"), numbers=[1])
    assert capsys.readouterr().out.splitlines() == ["name   n", "猫     5", "a\\tb  10"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_shows_each_probability(run: Run, model: str, pictures: Path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    code, _, err = run("classify", pictures / "red2.png", "--labels", "[b]one", "--model", model)
    shown = sys.stdout.getvalue()
    assert (code, err.count("is the only label")) == (0, 1)
    assert "100.0%" in shown
    assert "[b]one" in shown  # not taken for markup
    assert shown.count("█") == 20


# classify


def classified(run: Run, *words: object) -> dict:
    code, out, err = run("classify", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_classify_gives_a_softmax_over_the_labels_best_first(run: Run, bundle: Bundle, model: str, pictures: Path):
    labels = ["a kite", "a boat", "a dog"]
    words = [word for label in labels for word in ("--labels", label)]
    result = classified(run, pictures, *words, "--templates", "a red {}", "--model", model)
    assert {key: result[key] for key in ("model", "templates", "skipped")} == {
        "model": model,
        "templates": ["a red {}"],
        "skipped": [],
    }
    paths = [str(pictures / name) for name in ("deeper/blue.png", "green10.png", "red2.png")]
    assert [image["path"] for image in result["images"]] == paths
    expected = ZeroShotClassifier(bundle, labels, ["a red {}"])(paths)  # [3, 3]
    for image, row in zip(result["images"], expected.tolist(), strict=True):
        shares = {guess["label"]: guess["probability"] for guess in image["labels"]}
        assert shares == pytest.approx(dict(zip(labels, row, strict=True)), abs=1e-5)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def latin(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose tokenizer has a small vocabulary."""
    folder = tmp_path_factory.mktemp("latin")
    backend, config, _ = FOREIGN["BERT"]
    tokenizer = Tokenizer.load(write_tokenizer(folder / "tokenizer", backend(), config), context_length=77)
    dataclasses.replace(bundle, tokenizer=tokenizer).save(folder / "model")
    return str(folder / "model")


def test_words_that_the_model_cannot_read_are_told_or_refused(run: Run, fails, latin, pictures: Path, tmp_path: Path):
    model = ("--model", latin)
    no_text = r"'犬' is no text to this model.*take a model that reads any letters"
    assert re.search(no_text, fails("classify", pictures, "--labels", "犬", "--labels", "車", *model))
    code, out, err = run("classify", pictures, "--labels", "a photo", "--labels", "犬", *model, "--json")
    assert (code, err.count("\n")) == (0, 1)
    assert re.search(no_text, err)
    assert json.loads(out)["unread"] == [{"text": "犬", "words": 1, "unknown": 1, "read_by": ""}]
    index = ("--index", tmp_path / "index", *model)
    run("index", "update", pictures, *index)
    assert re.search(no_text, fails("search", "犬", pictures, *index))
    code, out, err = run("search", "photo 犬", pictures, *index)
    assert (code, out.count("\n")) == (0, 4)
    assert "does not know 1 of 2 words of 'photo 犬'" in err
    (tmp_path / "deny.txt").write_text("犬\n車\n", encoding="utf-8")
    words = ("filter", pictures, "--deny-list", tmp_path / "deny.txt", "--threshold", 0, *model)
    assert re.search(no_text, fails(*words))
    (tmp_path / "deny.txt").write_text("犬\na photo\n", encoding="utf-8")
    code, out, err = run(*words, "--json")
    assert [text["text"] for text in json.loads(out)["unread"]] == ["犬"]
    assert re.search(no_text, err)


def test_classify_prints_aligned_lines_where_there_is_no_terminal(run: Run, model: str, pictures: Path):
    code, out, err = run("classify", pictures / "red2.png", pictures / "green10.png", *TWO_LABELS, "--model", model)
    assert (code, err) == (0, "")
    first, second = out.split("\n\n")
    assert [first.splitlines()[0], second.splitlines()[0]] == [str(pictures / n) for n in ("red2.png", "green10.png")]
    for line in first.splitlines()[1:]:
        share, label = line[:5].strip(), line[7:]
        assert share.endswith("%")
        assert label in ("a cat", "a dog")


def test_top_limits_the_labels_and_files_add_to_options(run: Run, model: str, pictures: Path, tmp_path: Path):
    (tmp_path / "labels.txt").write_text("a bird\n\n  a fish \n")
    (tmp_path / "templates.txt").write_text("one {}\n")
    files = ("--labels-file", tmp_path / "labels.txt", "--templates-file", tmp_path / "templates.txt")
    words = (pictures / "red2.png", *TWO_LABELS, *files, "--templates", "pets", "--model", model)
    result = classified(run, *words)
    assert {guess["label"] for guess in result["images"][0]["labels"]} == {"a cat", "a dog", "a bird", "a fish"}
    assert result["templates"] == [*TEMPLATES["pets"], "one {}"]
    best = classified(run, *words, "--top", 1)["images"][0]["labels"]
    assert best == result["images"][0]["labels"][:1]


def test_patterns_reach_what_a_shell_did_not_expand(run: Run, model: str, pictures: Path):
    (pictures / "notes.txt").write_text("not a picture")
    paths = [image["path"] for image in classified(run, pictures / "*.png", *TWO_LABELS, "--model", model)["images"]]
    assert paths == [str(pictures / "green10.png"), str(pictures / "red2.png")]
    deep = classified(run, pictures / "**" / "bl*.png", *TWO_LABELS, "--model", model)["images"]
    assert [image["path"] for image in deep] == [str(pictures / "deeper" / "blue.png")]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(run: Run, model: str, pictures: Path):
    (pictures / "red2.png").rename(pictures / "a[1].png")
    [image] = classified(run, pictures / "a[1].png", *TWO_LABELS, "--model", model)["images"]
    assert image["path"] == str(pictures / "a[1].png")


def test_a_dash_is_a_picture_on_standard_input(run: Run, model: str, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    from_file = classified(run, pictures / "red2.png", *TWO_LABELS, "--model", model)["images"][0]["labels"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((pictures / "red2.png").read_bytes())))
    [image] = classified(run, "-", *TWO_LABELS, "--model", model)["images"]
    assert image == {"path": "-", "labels": from_file}


def test_a_broken_picture_among_several_is_named_and_the_rest_answered(run: Run, model: str, pictures: Path):
    whole = (pictures / "red2.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    words = ("classify", pictures / "cut.png", pictures / "red2.png", *TWO_LABELS, "--model", model)
    code, out, err = run(*words, "--json")
    result = json.loads(out)
    assert code == 0
    assert [image["path"] for image in result["images"]] == [str(pictures / "red2.png")]
    [skipped] = result["skipped"]
    assert (skipped["path"], skipped["cause"]) == (str(pictures / "cut.png"), "truncated")
    assert err.splitlines() == [
        f"diptych: skipped: {skipped['message']}",
        "diptych: 1 of 2 pictures could not be read.",
    ]
    code, out, err_of_text = run(*words)
    assert (code, err_of_text) == (0, err)
    assert "cut.png" not in out


def test_the_limit_of_pixels_is_an_option_wherever_its_message_names_it(run: Run, fails, model: str, tmp_path: Path):
    (tmp_path / "large").mkdir()
    large = tmp_path / "large" / "a.png"
    Image.new("L", (1200, 1000)).save(large)
    words = ("--labels", "a", "--labels", "b")
    message = fails("classify", large, *words, "--model", model, "--max-pixels", 1)
    assert "at most 1,000,000 pixels. It has 1,200 x 1,000" in message
    assert "--max-pixels" in message
    assert run("classify", large, *words, "--model", model, "--max-pixels", 2)[0] == 0
    out = tmp_path / "out.npz"
    assert "none of 1 pictures" in run("embed", large, "--out", out, "--model", model, "--max-pixels", 1)[2]
    assert run("embed", large, "--out", out, "--model", model, "--max-pixels", 2)[0] == 0
    index = ("index", "update", tmp_path / "large", "--model", model, "--index", tmp_path / "index", "--max-pixels")
    assert "1 skipped" in run(*index, 1)[1]


def test_when_no_picture_can_be_read_it_fails(run: Run, fails, model: str, tmp_path: Path):
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_text("<html>not found</html>")
    message = fails("classify", tmp_path / "one.png", *TWO_LABELS, "--model", model)
    assert message.startswith(f"{tmp_path / 'one.png'} ")
    code, out, err = run("classify", tmp_path, *TWO_LABELS, "--model", model)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "diptych: none of 2 pictures could be read."
    assert len(err.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png", *TWO_LABELS], "nothing.png must be a picture, a folder or a pattern, and nothing is there."),
        (["*.jpg", *TWO_LABELS], "*.jpg must be a picture, a folder or a pattern, and nothing is there."),
        (["red.png", "--labels", "a cat", "a dog"], "nothing is there. If it is meant as a label, put --labels before"),
        (["empty", *TWO_LABELS], "no picture was found in empty. Endings that count: apng, "),
        (["red.png"], 'there must be labels to choose from. Add e.g. --labels "a cat"'),
        ([*TWO_LABELS], "there must be a picture to classify. Name a file, a folder, a pattern, or - for stdin."),
        (["red.png", "--labels", " "], "a label must not be empty. Number 1 of 1 is"),
        (["red.png", *TWO_LABELS, "--labels", "a cat"], "labels must differ. More than once: a cat."),
        (["red.png", *TWO_LABELS, "--labels-file", "none.txt"], "none.txt cannot be read: No such file"),
        (["red.png", *TWO_LABELS, "--templates", "imagnet"], "Did you mean imagenet?"),
        (["red.png", *TWO_LABELS, "--templates", "{} {}"], "a prompt template must hold one {} for the class name."),
        (["red.png", *TWO_LABELS, "--model", "no-model"], "no-model is not a model."),
        (
            ["red.png", *TWO_LABELS, "--model", "empty"],
            "empty must hold config.json or open_clip_config.json, and has neither.",
        ),
    ],
)
def test_classify_says_what_to_do(fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words, message: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "red.png")
    assert message in fails("classify", *words)


def test_a_dash_with_nothing_piped_in_does_not_wait(fails, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert fails("classify", "-", *TWO_LABELS).startswith("- reads a picture from standard input, and nothing is")


# evaluate


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Class folders, two pictures a colour, one of them broken."""
    for name, colour in COLOURS.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (40, 30 + i), colour).save(tmp_path / "set" / name / f"{i}.png")
    (tmp_path / "set" / "red" / "1.png").write_text("broken")
    return tmp_path / "set"


def test_evaluate_writes_numbers_with_their_conditions(run, bundle: Bundle, model: str, labelled: Path, tmp_path: Path):
    out = tmp_path / "results.json"
    words = ("evaluate", "zero-shot", "--data", labelled, "--model", model, "--templates", "a {} kite")
    code, shown, err = run(*words, "--out", out, "--seed", 3)
    assert (code, err) == (0, "")
    result = json.loads(out.read_text())
    classifier = ZeroShotClassifier(bundle, sorted(COLOURS), ["a {} kite"])
    names = ["blue/0", "blue/1", "green/0", "green/1", "red/0"]
    guesses = classifier([labelled / f"{name}.png" for name in names]).argmax(axis=1).tolist()
    truth = [0, 0, 1, 1, 2]
    assert result["value"] == pytest.approx(np.mean(np.equal(guesses, truth)))
    assert (result["n"], result["skipped"], result["rows"]["keys"]) == (
        5,
        {"not an image": 1},
        [f"{name}.png" for name in names],
    )
    assert result["model"] == {"name": model, "fingerprint": bundle.fingerprint()}
    assert (result["format"], result["measurement"]) == ("diptych-result-1", "zero-shot")
    assert (result["conditions"]["seed"], result["prompts"]["templates"]) == (3, ["a {} kite"])
    assert {"diptych", "torch", "python"} <= set(result["conditions"]["versions"])
    assert {"cpu", "cores"} <= set(result["conditions"]["hardware"])
    header, row, prompts = shown.splitlines()
    assert prompts == "prompts: a {} kite, as asked for"
    assert header.split() == [
        "data",
        "accuracy",
        "95%",
        "interval",
        "mean",
        "per",
        "class",
        "n",
        "classes",
        "skipped",
    ]
    assert row.split()[:2] == ["set", f"{result['value']:.2%}"]
    assert row.split()[-3:] == ["5", "3", "1"]

    run(*words, "--out", tmp_path / "again.json", "--seed", 3)
    assert (tmp_path / "again.json").read_text() == out.read_text()


def test_the_digest_of_the_data_tells_what_changed(run: Run, model: str, labelled: Path, tmp_path: Path):
    def digest() -> str:
        run("evaluate", "zero-shot", "--data", labelled, "--model", model, "--out", tmp_path / "out.json")
        return json.loads((tmp_path / "out.json").read_text())["data"]["sha256"]

    first = digest()
    assert digest() == first
    (labelled / "blue" / "0.png").rename(labelled / "blue" / "9.png")
    renamed = digest()
    (labelled / "red" / "1.png").write_text("broken otherwise")
    assert len({first, renamed, digest()}) == 3


def test_evaluate_without_data_measures_the_embedded_style(run: Run, model: str, tmp_path: Path):
    from diptych.data.embedded import HELD_OUT, data_path

    code, _, err = run("evaluate", "zero-shot", "--model", model, "--out", tmp_path / "out.json")
    assert (code, err) == (0, "")
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["data"]["name"] == data_path(HELD_OUT).name
    assert result["n"] > 1000
    assert result["value"] < 0.05  # the model knows nothing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "nowhere"], "nowhere must be a folder of labelled pictures."),
        (["--split", "tset"], "has no split 'tset'. It has: test."),
        (["--templates", "no gap"], "no gap is not a prompt template"),
        (["--seed", "-1"], 'Invalid value "-1" for --seed.'),
    ],
)
def test_evaluate_says_what_to_do(fails, words: list[str], message: str):
    assert message in fails("evaluate", "zero-shot", *words)


def test_models_are_averaged_and_measured_on_the_way(
    run: Run, fails, bundle: Bundle, model: str, labelled: Path, tmp_path: Path
):
    other = dataclasses.replace(bundle, model=CLIP(bundle.model.config, generator(9)).eval())
    other.save(tmp_path / "other")
    code, out, _ = run("models", "average", model, tmp_path / "other", "--alpha", 0.25, "--out", tmp_path / "mean")
    assert (code, out) == (0, f"0.75 x {model} + 0.25 x {tmp_path / 'other'} -> {tmp_path / 'mean'}\n")
    mean = Bundle.load(tmp_path / "mean")
    want = bundle.model.text.projection.lerp(other.model.text.projection, 0.25)  # pyright: ignore
    torch.testing.assert_close(mean.model.text.projection, want)
    assert "alpha must lie between 0 and 1" in fails(
        "models", "average", model, tmp_path / "other", "--alpha", 2, "--out", tmp_path / "none"
    )
    assert not (tmp_path / "none").exists()

    shutil.copytree(labelled, tmp_path / "old")
    words = ("evaluate", "wise-ft", model, tmp_path / "other", "--data", labelled, "--reference", tmp_path / "old")
    code, out, _ = run(*words, "--alphas", 0, "--alphas", 1, "--out", tmp_path / "curve.json")
    assert code == 0
    assert out.split()[:5] == ["alpha", "set", "(new)", "old", "(old)"]
    found = json.loads((tmp_path / "curve.json").read_text())
    assert [point["alpha"] for point in found["points"]] == [0.0, 1.0]
    assert all(point["target"] == point["reference"] == point["references"]["old"] for point in found["points"])
    assert found["pretrained"]["fingerprint"] == bundle.fingerprint()
    assert found["model"]["fingerprint"] == other.fingerprint()
    assert found["references"][0]["name"] == "old"
    assert "distinct names" in fails(*words[:6], "--reference", labelled)
    assert "--reference" in fails(*words[:6])


def test_a_result_file_tells_what_became_of_each_picture(
    run: Run, bundle: Bundle, model: str, labelled: Path, tmp_path
):
    run("evaluate", "zero-shot", "--data", labelled, "--model", model, "--out", tmp_path / "out.json")
    result = read_result(tmp_path / "out.json")
    assert result.prompts.labels == tuple(sorted(COLOURS))
    rows = result.rows
    assert rows.keys == ("blue/0.png", "blue/1.png", "green/0.png", "green/1.png", "red/0.png")  # one cannot be read
    assert rows.targets is not None
    assert rows.correct is not None
    assert rows.confidences is not None
    assert rows.targets.tolist() == [0, 0, 1, 1, 2]
    assert rows.correct.double().mean().item() == result.value
    sure = ZeroShotClassifier(bundle, sorted(COLOURS))([labelled / "blue" / "0.png"]).max().item()
    assert rows.confidences[0].item() == pytest.approx(sure, abs=1e-3)
    assert result.reliability
    assert sum(some.rows for some in result.reliability.bins) == 5


def test_compare_pairs_two_results(run: Run, fails, model: str, labelled: Path, tmp_path: Path):
    for name, words in (("a", ()), ("b", ("--templates", "no {} at all"))):
        run("evaluate", "zero-shot", "--data", labelled, "--model", model, *words, "--out", tmp_path / f"{name}.json")
    code, shown, err = run(
        "evaluate", "compare", tmp_path / "a.json", tmp_path / "b.json", "--out", tmp_path / "c.json"
    )
    assert (code, err) == (0, "")
    header, row = shown.splitlines()[:2]
    a, b = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
    assert header.split()[-2:] == ["test", "p"]
    assert row.split()[:6] == ["set,", "zero-shot", "accuracy", "5", f"{a['value']:.2%}", f"{b['value']:.2%}"]
    [found] = json.loads((tmp_path / "c.json").read_text())["compared"]
    assert found["test"]["difference"] == pytest.approx(b["value"] - a["value"])
    assert found["test"]["only_b"] - found["test"]["only_a"] == round(5 * found["test"]["difference"])

    (tmp_path / "both").mkdir()
    for name in ("a.json", "b.json"):
        (tmp_path / "both" / name).write_text((tmp_path / "a.json").read_text().replace('"set"', f'"{name[0]}"'))
    (tmp_path / "both" / "old.json").write_text('{"task": "zero-shot", "model": {}, "data": {}}')
    _, shown, err = run("evaluate", "compare", tmp_path / "both", tmp_path / "both")
    assert [line.split()[0] for line in shown.split("\n\n")[0].splitlines()] == ["data", "a,", "b,"]
    assert shown.splitlines()[1].split()[-2:] == ["1", "1"]  # p, and p corrected for two tests
    assert err.startswith("diptych: left out: ")
    assert "old.json must be a result file (diptych-result-1). It holds a result of an older version." in err
    (tmp_path / "both" / "old.json").unlink()
    assert "A has: a, zero-shot; b, zero-shot. B has: set, zero-shot." in fails(
        "evaluate", "compare", tmp_path / "both", tmp_path / "a.json"
    )
    assert "must be a result file" in fails("evaluate", "compare", tmp_path / "a.json", tmp_path / "none.json")


def test_compare_tells_the_effective_robustness_of_both(run: Run, tmp_path: Path):
    for side, some in zip("ab", models_on_shifts(2).values(), strict=True):
        for one in some:
            write_result(one, tmp_path / side / f"{one.data.name}.zero-shot.json")
    code, shown, err = run("evaluate", "compare", tmp_path / "a", tmp_path / "b")
    assert (code, err) == (0, "")
    header, *rows = shown.split("\n\n")[1].splitlines()
    assert header.split()[-2:] == ["effective", "robustness"]
    assert [row.split()[0] for row in rows] == ["A"] * 7 + ["B"] * 7 + ["A", "B"]  # seven shifts, and their mean
    beyond = effective_robustness(0.6, 0.48, TRENDS["imagenet-v2"])
    assert rows[7].split()[1:] == ["imagenet-v2", "60.00%", "48.00%", f"{100 * beyond:+.2f}"]


def test_report_takes_only_pictures_that_were_measured(run: Run, fails, model: str, labelled: Path, tmp_path: Path):
    run("evaluate", "zero-shot", "--data", labelled, "--model", model, "--out", tmp_path / "a.json")
    words = ("evaluate", "report", tmp_path / "a.json", "--out", tmp_path / "report.html")
    for data in (labelled, labelled.parent):  # the set, and the folder that holds it
        code, shown, err = run(*words, "--data", data)
        assert (code, err, shown) == (0, "", f"1 result -> {tmp_path / 'report.html'}\n")
        assert (tmp_path / "report.html").read_text().count("<img") > 0
    run(*words)
    assert (tmp_path / "report.html").read_text().count("<img") == 0
    (labelled / "blue" / "0.png").rename(labelled / "blue" / "9.png")
    for name, ending in (("csv", "csv"), ("latex", "tex"), ("markdown", "md")):
        path = tmp_path / f"report.{ending}"
        _, shown, _ = run("evaluate", "report", tmp_path / "a.json", "--format", name, "--out", path)
        assert shown == f"1 result -> {path}\n"
        assert "zero-shot" in path.read_text()
    assert "there must be results to lay out" in fails("evaluate", "report")
    code, _, err = run(*words, "--data", labelled)
    assert (code, err) == (0, f"diptych: set is not in {labelled} as it was measured: its pictures are left out.\n")
    assert "must be a result file" in fails("evaluate", "report", tmp_path / "none.json")


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Three colours, four pictures each in train and test."""
    for split in ("train", "test"):
        for name, colour in COLOURS.items():
            (tmp_path / "splits" / split / name).mkdir(parents=True)
            for i in range(4):
                shade = tuple(min(255, value + 9 * i) for value in colour)
                Image.new("RGB", (40, 30 + i), shade).save(tmp_path / "splits" / split / name / f"{i}.png")
    return tmp_path / "splits"


def test_prompts_chooses_on_one_half_and_measures_on_the_other(run: Run, model: str, splits: Path, tmp_path: Path):
    words = ("evaluate", "prompts", "--data", splits, "--model", model, "--templates", "{}", "--templates", "a {} kite")
    code, shown, err = run(*words, "--templates", "stl10", "--collision", -1, "--out", tmp_path / "out.json")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["format"] == "diptych-prompts-1"
    scores = {row["template"]: row["top1"] for row in found["templates"]}
    assert scores.keys() == {"{}", "a {} kite", "a photo of a {}.", "a photo of the {}."}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert {one["n"] for one in found["measured"].values()} == {6}
    assert list(found["measured"]) == ["class name alone", "all 4 templates", f"the {len(found['chosen'])} chosen"]
    assert found["chosen"][0]["template"] == found["templates"][0]["template"]
    assert len(found["collisions"]) == 3  # from a cosine of -1 on all pairs collide
    assert "4 templates on 6 pictures: top-1" in shown
    assert "hard to tell from" in shown

    _, shown, _ = run(*words, "--choose-split", "train", "--most", 1, "--out", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert "2 templates on 12 pictures: top-1" in shown
    assert {one["n"] for one in found["measured"].values()} == {12}
    assert len(found["chosen"]) == 1


def test_probe_fits_on_one_split_and_measures_on_another(run: Run, model: str, splits: Path, tmp_path: Path):
    words = ("evaluate", "probe", "--data", splits, "--model", model, "--shots", 1, "--shots", 2, "--repeats", 2)
    code, shown, err = run(*words, "--out", tmp_path / "out.json")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "out.json").read_text())
    fit = found["probe"]
    assert (fit["train_examples"], fit["validation_examples"], found["n"], fit["a_class"]) == (9, 3, 12, 4)
    assert found["value"] == 1  # colours are easy
    assert found["rows"]["correct"].split() == ["b", *["1"] * 12]
    assert fit["l2"] in map(float, fit["tried"])
    assert [one["point"]["shots"] for one in fit["few_shot"]] == [1, 2]
    assert [line.split()[0] for line in shown.splitlines()[:5]] == ["splits", "zero-shot", "1-shot", "2-shot", "linear"]
    assert "prompts: {}, the bare name" in shown
    assert "labelled pictures a class" in shown


def test_a_probe_is_kept_and_classifies(run: Run, fails, bundle: Bundle, model: str, splits: Path, tmp_path: Path):
    kept = tmp_path / "my classes"
    words = ("evaluate", "probe", "--data", splits, "--model", model, "--save", kept)
    code, shown, err = run(*words)
    assert (code, err, shown.splitlines()[-1]) == (0, "", f"{len(list((splits / 'test').iterdir()))} classes -> {kept}")
    probe = Probe.load(kept)
    assert (probe.fingerprint, probe.model) == (bundle.fingerprint(), "tiny")  # and no path of this machine
    assert {key: probe.about[key] for key in ("examples", "metric", "value")} == {
        "examples": 12, "metric": "accuracy", "value": 1.0,
    }  # fmt: skip
    pictures = sorted((splits / "test").rglob("*.png"))
    code, shown, err = run("classify", splits / "test", "--probe", kept, "--model", model, "--json")
    assert (code, err) == (0, "")
    found = json.loads(shown)
    assert (found["probe"], found["unread"]) == (str(kept), [])
    assert [one["labels"][0]["label"] for one in found["images"]] == [path.parent.name for path in pictures]
    best = probe(bundle, pictures).max(axis=1)
    assert best.min() > 0.5  # and not as much as the others, as with the strongest penalty
    np.testing.assert_allclose([one["labels"][0]["probability"] for one in found["images"]], best, atol=1e-4)
    assert "fitted to a model that does not ship" in fails("classify", pictures[0], "--probe", kept)
    other = ("--model", "diptych-pictogram-small")
    assert "with the model tiny, and this one is another" in fails("classify", pictures[0], "--probe", kept, *other)
    assert "Leave --labels" in fails("classify", pictures[0], "--probe", kept, *TWO_LABELS)
    assert "Leave --image-size out" in fails(*words, "--image-size", 64)
    assert "is a folder" in fails(*words[:-1], tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["probe", "--split", "train"], "The splits of a probe must differ. Got train, train."),
        (["probe", "--shots", "9"], "Each class needs 9 examples for 9 shots."),
        (["probe", "--validation-split", "val"], "has no split 'val'. It has: test, train."),
        (["prompts", "--choose-split", "val"], "has no split 'val'. It has: test, train."),
        (["prompts", "--most", "0"], 'Invalid value "0" for --most.'),
    ],
)
def test_probe_and_prompts_say_what_to_do(fails, model: str, splits: Path, words: list[str], message: str):
    assert message in fails("evaluate", *words, "--data", splits, "--model", model)


def test_suite_prints_one_table_and_its_exit_code_tells_what_failed(
    run: Run, model: str, labelled_sets: Path, tmp_path
):
    words = ("evaluate", "suite", "--data", labelled_sets, "--model", model, "--out", tmp_path / "out")
    code, shown, err = run(*words)
    assert code == 0
    classified, retrieved = shown.split("\n\n")
    assert [line.split()[0] for line in classified.splitlines()] == ["data", "colours", "shades", "mean"]
    assert [line.split()[0] for line in retrieved.splitlines()] == ["retrieval", "captioned:", "captioned:"]
    assert classified.splitlines()[0].split()[:5] == ["data", "metric", "n", "zero-shot", "95%"]
    zero_shot = json.loads((tmp_path / "out" / "shades.zero-shot.json").read_text())
    assert classified.splitlines()[2].split()[2:4] == ["11", f"{zero_shot['value']:.2%}"]
    assert err.count(", measured") == 5
    assert (tmp_path / "out" / "features").is_dir()

    again = run(*words)
    assert again[:2] == (0, shown)
    assert again[2].count(", kept") == 5
    code, shown, err = run(*words, "--tasks", "captioned", "--seed", 1)
    assert (code, shown.split()[0]) == (0, "retrieval")
    (labelled_sets / "captioned" / "test" / "0.tar").write_bytes(b"no tar")
    code, _, err = run(*words)
    assert code == 2
    assert "diptych: captioned, retrieval: " in err
    assert err.endswith(f"diptych: 1 of 5 measurements failed. What could be measured is in {tmp_path / 'out'}.\n")


def test_nine_kinds_of_two_models_go_from_a_folder_to_a_page(run: Run, bundle: Bundle, model: str, tmp_path: Path):
    data = nine_kinds(tmp_path / "data")
    other = dataclasses.replace(bundle, model=CLIP(bundle.model.config, generator(5)).eval())
    other.save(tmp_path / "other")
    for name, folder in (("a", model), ("b", tmp_path / "other")):
        code, _, err = run("evaluate", "suite", "--data", data, "--model", folder, "--out", tmp_path / name)
        assert code == 0
        assert err.count(", measured; prompts: ") == 11  # nine kinds, a probe, and ucf101 by two rows
    code, shown, err = run("evaluate", "report", tmp_path / "a", "--data", data, "--out", tmp_path / "page.html")
    assert (code, err, shown.split()[0]) == (0, "", "11")
    page = (tmp_path / "page.html").read_text()
    kinds = ("classification", "multilabel", "video", "anchors", "rare-actions", "ocr", "geolocation", "compositional")
    assert [kind for kind in kinds if f">{kind}</td>" not in page] == []
    assert "captions: text to pictures" in page
    code, shown, err = run("evaluate", "compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c.json")
    assert (code, err) == (0, "")
    tests = shown.split("\n\n")[0].splitlines()[1:]
    written = json.loads((tmp_path / "c.json").read_text())["compared"]
    assert len(tests) == len(written) == len({one["title"] for one in written}) == 11
    assert {one["kind"] for one in written} == {*kinds, "retrieval"}
    assert {"cifar10, zero-shot", "cifar10, linear-probe", "captions, retrieval"} < {one["title"] for one in written}
    assert "temperature" in shown.split("\n\n")[1]
    (tmp_path / "b" / "captions.retrieval.json").unlink()
    _, shown, _ = run("evaluate", "compare", tmp_path / "a", tmp_path / "b")
    assert "\nOnly A has: captions, retrieval.\n" in shown


def test_one_rule_for_prompts_whatever_the_command(run: Run, model: str, tmp_path: Path):
    data = nine_kinds(tmp_path / "data") / "cifar10"
    out = tmp_path / "out"
    for name in ("zero-shot", "probe"):
        _, shown, _ = run("evaluate", name, "--data", data, "--model", model, "--out", out)
        assert "(18), of the row cifar10 of the table of tasks" in shown
    _, shown, _ = run("evaluate", "prompts", "--data", data, "--model", model, "--most", 1)
    assert "(18), of the row cifar10 of the table of tasks" in shown
    _, _, err = run("evaluate", "suite", "--data", data.parent, "--tasks", "cifar10", "--model", model, "--out", out)
    assert err.count(", kept; prompts: ") == 2  # the same prompts, the same names of files
    results, _ = read_results(out)
    assert len({one.prompts for one in results.values()}) == 1
    asked = ("--templates", "a {}", "--out", tmp_path / "a.json")
    run("evaluate", "zero-shot", "--data", data, "--model", model, *asked)
    assert read_result(tmp_path / "a.json").prompts.templates == ("a {}",)


def test_codes_become_names_and_it_is_said_and_kept(run: Run, fails, model: str, splits: Path, tmp_path: Path):
    for split in ("train", "test"):
        for name, code in (("red", "n01440764"), ("green", "n01443537"), ("blue", "n02123045")):
            (splits / split / name).rename(splits / split / code)
    words = ("--data", splits, "--model", model)
    said = "class names: WordNet ids by their names (n01440764 -> tench)."
    for name, out in (("zero-shot", "out"), ("probe", "out"), ("prompts", "prompts.json"), ("suite", "out")):
        code, shown, err = run("evaluate", name, *words, "--out", tmp_path / out)
        assert (code, said in err, "n01440764" in shown) == (0, True, False), name
    for result in read_results(tmp_path / "out")[0].values():
        assert result.prompts.names == ("tench", "goldfish", "tabby cat")
        assert f"class names: {result.prompts.naming}." == said
    for split in ("train", "test"):
        (splits / split / "n01443537").rename(splits / split / "n00004475")
    assert "put words.txt beside the data" in fails("evaluate", "zero-shot", *words)


def test_names_that_are_too_long_are_refused_or_cut_and_counted(
    run: Run, fails, model: str, splits: Path, tmp_path: Path
):
    for split in ("train", "test"):
        (splits / split / "red").rename(splits / split / ("red and green and blue " * 8).strip())
    words = ("--data", splits, "--model", model)
    said = "texts that were too long for the model and were cut: 1."
    for name, out in (("zero-shot", "out"), ("probe", "out"), ("prompts", "prompts.json"), ("suite", "out")):
        asked = (*words, "--out", tmp_path / out)
        code, _, err = run("evaluate", name, *asked)
        assert (code, "a text must fit" in err, "red and green" in err) == (2, True, True), name
        code, _, err = run("evaluate", name, *asked, "--truncate")
        assert (code, "too long for the model and were cut: " in err) == (0, True), name
        assert name == "prompts" or said in err
    for result in read_results(tmp_path / "out")[0].values():
        assert result.shortened == 1
    assert run("evaluate", "suite", *words, "--out", tmp_path / "out")[0] == 2  # what was cut is not kept
    assert run("evaluate", "suite", *words, "--out", tmp_path / "out", "--truncate")[2].count(", kept") == 2
    old = tmp_path / "old"
    shutil.copytree(splits, old)
    curve = ("evaluate", "wise-ft", model, model, "--data", splits, "--reference", old, "--alphas", 0.5)
    assert "a text must fit" in fails(*curve)
    assert run(*curve, "--truncate")[0] == 0


def test_suite_and_retrieval_say_what_to_do(fails, labelled_sets: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert "nowhere must be a folder of data sets" in fails("evaluate", "suite", "--data", "nowhere", "--out", out)
    message = fails("evaluate", "suite", "--data", labelled_sets, "--out", out, "--tasks", "shads")
    assert "Did you mean shades?" in message
    assert not out.exists()
    assert "It holds none" in fails("evaluate", "retrieval", "--data", labelled_sets / "colours")
    words = ("evaluate", "retrieval", "--data", labelled_sets / "captioned", "--template", "no gap")
    assert "no gap" in fails(*words)


def test_retrieval_measures_both_ways_and_keeps_features(run: Run, model: str, labelled_sets: Path, tmp_path: Path):
    words = ("evaluate", "retrieval", "--data", labelled_sets / "captioned", "--model", model)
    code, shown, err = run(*words, "--out", tmp_path / "out.json", "--cache", tmp_path / "cache")
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "out.json").read_text())
    assert (found["measurement"], found["n"]) == ("retrieval", 24)
    assert found["rows"]["keys"][:3] == ["0/00#0", "0/00#1", "0/01#0"]
    rows = [line.split() for line in shown.splitlines()[1:3]]
    assert [row[4:6] for row in rows] == [["12", "24"], ["24", "12"]]
    assert f"{found['value']:.2%}" in rows[1]
    assert shown.splitlines()[3] == "prompts: {}, the bare name"
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert run(*words, "--cache", tmp_path / "cache")[1] == shown


# embed


@pytest.fixture
def training(tiny_recipe: TrainRecipe, tmp_path: Path) -> Path:
    """A recipe of twelve steps, a line of the log each."""
    recipe = dataclasses.replace(tiny_recipe, train=dataclasses.replace(tiny_recipe.train, steps=12))
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    return tmp_path / "recipe.toml"


def test_train_says_what_it_assumed_of_its_data_and_keeps_it(
    run: Run, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for number, (color, shape) in enumerate(itertools.product(COLORS, SHAPES)):
        path = tmp_path / "classes" / f"{color}_{shape}" / f"{number}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png(drawing(color, shape, 12)))
    source = "data.sources=[{path='classes'}]"
    code, _, said = run("train", training, "--out", tmp_path / "run", "--set", source, "--set", "train.steps=2")
    assert code == 0
    note = f"{tmp_path / 'classes'}: no picture has a text, so the names of 20 folders are the captions: black bar, "
    assert f"diptych: {note}" in said
    (kept,) = json.loads((tmp_path / "run" / "results.json").read_text())["notes"]
    assert kept.startswith(note)
    assert tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())["data"]["sources"][0]["path"] == str(
        tmp_path / "classes"
    )


def test_train_says_what_held_it_up_and_keeps_it_with_the_results(run: Run, training: Path, tmp_path: Path):
    code, shown, progress = run("train", training, "--out", tmp_path / "run")
    assert code == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["counts"]["pairs"] == 96
    time = results["counts"]["time"]
    assert time["step"] > 0
    assert sum(time.values()) >= results["counts"]["train_seconds"]
    assert re.match(r"\d+% of the time ", results["bottleneck"])
    assert shown.splitlines()[-1] == results["bottleneck"]
    lines = progress.splitlines()
    assert lines[-1].startswith("step 12/12  loss ") or lines[-2].startswith("step 12/12  loss ")
    assert sum("% of the time" in line for line in lines) >= 1  # once there are ten lines to go by


def test_each_evaluation_is_told_with_the_step_it_was_made_at(tiny_recipe, monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    plain = Console(file=screen, width=120, _environ={})
    monkeypatch.setattr(training_view, "error_console", lambda: plain)
    facts: dict[str, Any] = {"steps": 8, "loss": 2.0, "gradient_norm": 1.0, "learning_rate": 1e-3, "logit_scale": 14.0}
    facts |= {"pairs": 8, "seconds": 1.0, "pairs_per_second": 8.0, "bad": {}, "time": {"step": 1.0}}
    recipe = dataclasses.replace(tiny_recipe, train=dataclasses.replace(tiny_recipe.train, evaluate_every=3))
    with training_view.TrainingView(recipe) as view:
        for step, share in ((1, 0.125), (2, 0.125), (3, 0.25), (4, 0.25), (8, 0.5)):
            view(StepReport(**facts, step=step, metrics={"set/top1": share}))
    with training_view.TrainingView(recipe) as resumed:
        resumed(StepReport(**facts, step=5, metrics={"set/top1": 0.25}))
    told = [line for line in screen.getvalue().splitlines() if "set/top1" in line]
    assert told == [
        "step 0  set/top1 12.5%", "step 3  set/top1 25.0%", "step 8  set/top1 50.0%", "step 3  set/top1 25.0%"
    ]  # fmt: skip


def test_the_demo_leaves_a_model_its_results_and_a_page(run: Run, tmp_path: Path):
    """Two steps of it, on all of its data."""
    small = ("--set", "train.steps=2", "--set", "train.batch_size=16", "--set", "evaluate=[]")
    code, shown, _ = run("demo", "--out", tmp_path / "demo", *small)
    assert code == 0
    first, *described, report, results, model = shown.splitlines()
    found = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert first.startswith(f"zero-shot top-1 {found['top1']:.1%} ({found['interval']['low']:.1%} to ")
    assert first.endswith("over 1,940 names in an art style it has never seen; chance 0.05%")
    assert len(described) >= 8
    out = tmp_path / "demo"
    assert (report, results) == (f"report  {out / 'report.html'}", f"results {out / 'results.json'}")
    assert model == f"model   {out / 'bundle'}"
    assert found["pairs_seen"] == 32
    assert "out of 1,940 names" in (out / "report.html").read_text()
    assert (out / "bundle" / "model.safetensors").is_file()


def test_the_demo_takes_the_steps_that_fit_says_so_and_keeps_them(run: Run, tmp_path: Path, monkeypatch):
    from diptych.train import pace

    slow = pace.Pace(step=10.0, evaluation=0.0, spent=0.0)
    monkeypatch.setattr(pace, "measure_pace", lambda recipe, *, evaluators: slow)
    options = ("--minutes", "2", "--set", "train.steps=40", "--set", "train.batch_size=16", "--set", "evaluate=[]")
    code, _, said = run("demo", "--out", tmp_path / "demo", *options)
    assert code == 0
    assert "diptych: a step takes 10.00 s here: 10 of 40 steps fit into 2 minutes (--minutes)." in said
    found = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert (found["pairs_seen"], found["steps"], found["planned_steps"]) == (160, 10, 40)
    assert "10 of 40, as this machine was slow" in (tmp_path / "demo" / "report.html").read_text()
    monkeypatch.setattr(pace, "measure_pace", None)  # a run that was begun is not measured again
    again, _, said = run("demo", "--out", tmp_path / "demo", *options)
    assert again == 0
    assert "fit into" not in said
    assert json.loads((tmp_path / "demo" / "results.json").read_text())["steps"] == 10


def test_on_a_terminal_what_holds_a_run_up_stands_below_its_bar(tiny_recipe, monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, _environ={})
    monkeypatch.setattr(training_view, "error_console", lambda: terminal)
    monkeypatch.setattr(training_view, "shows_bars", lambda: True)
    facts = {"step": 1, "steps": 8, "loss": 2.0, "gradient_norm": 1.0, "learning_rate": 1e-3, "logit_scale": 14.0}
    facts |= {"pairs": 8, "seconds": 1.0, "pairs_per_second": 8.0, "metrics": {}, "bad": {}}
    with training_view.TrainingView(tiny_recipe) as view:
        view(StepReport(**facts, time={"data": 3.0, "step": 1.0, "decode": 3.0}))
    shown = screen.getvalue()
    assert "step 1/8  loss 2.000  8 pairs/s" in shown
    assert shown.index("step 1/8") < shown.index("75% of the time waits for data: ")


def test_embed_writes_one_row_a_picture(run: Run, bundle: Bundle, model: str, pictures: Path, tmp_path: Path):
    (pictures / "broken.png").write_text("broken")
    out = tmp_path / "features.safetensors"
    code, shown, err = run("embed", pictures, "--out", out, "--model", model, "--batch-size", 2)
    assert code == 0
    assert shown == f"3 pictures -> {out}; 1 skipped\n"
    assert err.startswith(f"diptych: skipped: {pictures / 'broken.png'} ")
    assert err.count("\n") == 1
    with safetensors.safe_open(out, framework="pt") as file:
        keys = json.loads(file.metadata()["keys"])
        features = file.get_tensor("features")  # [3, 32]
    assert keys == [str(pictures / name) for name in ("deeper/blue.png", "green10.png", "red2.png")]
    np.testing.assert_allclose(features, bundle.encode_images(keys), atol=1e-5)


def test_embed_refuses_before_it_computes(fails, model: str, pictures: Path, tmp_path: Path):
    assert "supported extensions" in fails("embed", pictures, "--out", tmp_path / "x.csv", "--model", "none")
    assert "there must be a picture to embed." in fails("embed", "--out", tmp_path / "x.npz")
    (tmp_path / "x.npz").mkdir()
    assert "x.npz" in fails("embed", pictures, "--out", tmp_path / "x.npz", "--model", "none")


def test_embed_writes_nothing_when_no_picture_can_be_read(run: Run, model: str, tmp_path: Path):
    (tmp_path / "broken.png").write_text("broken")
    code, out, err = run("embed", tmp_path, "--out", tmp_path / "x.npz", "--model", model)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("diptych: none of 1 pictures could be read.")
    assert not (tmp_path / "x.npz").exists()


# models


def test_models_lists_what_ships_and_what_is_published(run: Run, fails):
    from diptych.weights.listing import list_packaged
    from diptych.weights.published import published_models
    from diptych.weights.verdict import refusals

    why = refusals(published_models())
    code, out, _ = run("models", "--json")
    assert code == 0
    published = [
        {**dataclasses.asdict(model), "also": list(model.also), "refusal": why.get(model.hub, "")}
        for model in published_models()
    ]
    assert json.loads(out) == {
        "packaged": [dataclasses.asdict(model) for model in list_packaged()],
        "published": published,
    }
    code, out, _ = run("models")
    assert code == 0
    assert all(model.name in out for model in list_packaged())
    lines = out.splitlines()
    row = next(line.split() for line in lines if line.startswith("hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K "))
    assert row == ["hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "0.61", "GB", "66.6", "%", "yes"]
    assert next(line.split()[-1] for line in lines if line.startswith("hf:Salesforce/blip2-itm-vit-g ")) == "no"
    at = lines.index("OpenCLIP: LAION-2B, English")
    assert lines[at + 1] == "licence: MIT | ImageNet: open_clip, docs/openclip_results.csv"
    assert all(model.hub in out for model in published_models())
    assert max(map(len, lines)) <= 100, "a terminal of 100 columns shows it as it is"
    assert lines[-1].startswith(f"{len(published) - len(why)} of {len(published)} open.")


def test_models_are_chosen_by_family_licence_and_size(run: Run, fails):
    out = run("models", "--family", "siglip 2", "--licence", "apache", "--max-size", 1.6)[1]
    found = [line.split()[0] for line in out.splitlines() if line.startswith("hf:")]
    assert len(found) == 6
    assert all(name.startswith("hf:google/siglip2-base-") for name in found)
    assert "In this package" not in out
    assert fails("models", "--family", "SigLP").startswith("SigLP is not a family. Did you mean SigLIP?")
    assert fails("models", "--licence", "GPL").startswith("GPL must be a part of a licence. Licences: Apache-2.0;")


def test_show_tells_what_a_folder_holds_without_touching_its_weights(run: Run, fails, bundle: Bundle, model: str):
    digest = sha256(Path(model) / "model.safetensors")
    code, out, _ = run("models", "show", model)
    facts = dict(line.split("  ", 1) for line in out.splitlines())
    assert code == 0
    assert facts["parameters"].strip() == f"{sum(p.numel() for p in bundle.model.parameters()):,}"
    assert facts["licence"].strip() == "CC0-1.0"
    assert json.loads(run("models", "show", model, "--json")[1])["embed_dim"] == 32
    assert sha256(Path(model) / "model.safetensors") == digest
    assert fails("models", "show", "no-model").startswith("no-model is not a model.")


@pytest.fixture
def bare(bundle: Bundle, tmp_path: Path) -> Path:
    """With heads of 64 channels, as a bare state dict has them."""
    bundle.tokenizer.save(tmp_path)
    config = bundle.model.config
    wide: dict[str, Any] = {"width": 64, "heads": 1, "mlp_width": 256}
    image, text = dataclasses.replace(config.image, **wide), dataclasses.replace(config.text, **wide)
    model = CLIP(dataclasses.replace(config, image=image, text=text), generator(0))
    torch.save(naming_of(model.config).from_ours(model.state_dict()), tmp_path / "bare.pt")
    return tmp_path / "bare.pt"


def test_what_a_bare_file_does_not_tell_is_asked_for_by_options_that_are_there(run: Run, fails, bare: Path, pictures):
    asked = fails("models", "show", bare)
    assert "pass --activation quick_gelu (OpenAI, " in asked
    assert "Here is no" not in asked
    elsewhere = fails("classify", pictures, "--labels", "a kite", "--model", bare)
    assert "pass --activation quick_gelu (OpenAI, " in elsewhere
    assert "Here is no --activation: `diptych models convert FILE OUT --format bundle` has it" in elsewhere
    words = ("--activation", "quick_gelu", "--mean", 0.5, 0.5, 0.5, "--end-token", 5)
    code, out, err = run("models", "show", bare, *words)
    facts = {line.split("  ")[0]: line for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert facts["pictures"].endswith("bicubic, mean 0.5 0.5 0.5, std 0.2686 0.2613 0.2758 (told)")
    assert facts["end token"].endswith("token 5 (told)")
    assert facts["activation"].endswith("told")


def test_what_is_assumed_is_said_and_kept_by_a_conversion(run: Run, bare: Path, pictures: Path, tmp_path: Path):
    words = ("models", "convert", bare, tmp_path / "out", "--format", "bundle", "--activation", "quick_gelu")
    code, _, err = run(*words)
    assert code == 0
    first, second = err.splitlines()
    assert first.startswith(f"diptych: {bare} does not tell its picture recipe. Assumed: 32 px")
    assert first.endswith("wants --mean, --std, --resize or --interpolation.")
    assert second.endswith("wants --end-token.")
    code, _, err = run("classify", pictures, "--labels", "a kite", "--labels", "x", "--model", tmp_path / "out")
    assert (code, err) == (0, "")


def test_choices_that_are_written_out_are_those_of_the_library():
    assert get_args(models._Activation) == get_args(Activation)
    assert get_args(models._Format) == get_args(convert.Format)
    for name in ("Format", "Normalise"):
        assert get_args(getattr(export, f"_{name}")) == get_args(getattr(model_folder, name))
    assert get_args(export._StoredType) == (*get_args(model_folder.StoredType), "int8")
    assert [f"torch.{name}" for name in get_args(models._StoredType)] == list(map(str, saving.STORED_TYPES))


def test_export_writes_a_bundle_with_graphs_and_replaces_nothing(run: Run, tmp_path: Path):
    pytest.importorskip("onnxscript", reason="pip install 'diptych[export]'")
    out = tmp_path / "out"
    make("tiny-vit", new_tokenizer()).save(tmp_path / "model")
    code, printed, err = run("export", tmp_path / "model", out, "--dtype", "float16")
    assert (code, err, printed) == (0, "", f"{tmp_path / 'model'} -> {out} (onnx, float16)\n")
    assert {"image.onnx", "text.onnx", "graphs.json", "tokenizer.json", "config.json"} <= {
        p.name for p in out.iterdir()
    }
    code, _, err = run("export", tmp_path / "model", out)
    assert (code, err) == (2, f"diptych: {out} must not be there yet. Remove it, or choose another name.\n")


def test_tasks_are_listed_with_their_data_or_how_to_get_it(run: Run, tmp_path: Path):
    (tmp_path / "wds_cifar10").mkdir()
    code, out, _ = run("evaluate", "tasks", "--data", str(tmp_path))
    assert code == 0
    lines = out.splitlines()
    assert next(line for line in lines if line.startswith("cifar10 ")).endswith(f"in {tmp_path / 'wds_cifar10'}")
    assert "absent: food-101.tar.gz" in next(line for line in lines if line.startswith("food101 "))
    assert lines[-1] == f"1 of {len(lines) - 2} tasks have their data in {tmp_path}."
    code, out, _ = run("evaluate", "tasks", "fer2013", "--data", str(tmp_path), "--json")
    (row,) = json.loads(out)
    assert (row["name"], row["data"], row["classnames"][3]) == ("fer2013", None, ["happy", "smiling"])
    assert run("evaluate", "tasks", "fer2012")[2].startswith("diptych: fer2012 is not a task. Did you mean fer2013?")


def test_made_sets_can_be_measured(run: Run, model: str, tmp_path: Path):
    (tmp_path / "dev.txt").write_text("1 a fine film\n0 a dull film\n")
    made = {
        "text": ("rendered-sst2", str(tmp_path / "dev.txt"), str(tmp_path / "text")),
        "scenes": ("counting-scenes", str(tmp_path / "scenes"), "--test", "2"),
        "sketch": ("shifted", str(tmp_path / "scenes"), str(tmp_path / "sketch"), "--kind", "edges"),
    }
    for name, words in made.items():
        code, out, _ = run("make-data", *words)
        assert code == 0
        assert out == f"{tmp_path / name}: {'validation' if name == 'text' else 'test'} 2 pictures\n"
    code, out, _ = run("evaluate", "zero-shot", "--data", str(tmp_path / "sketch"), "--model", model)
    assert code == 0
    assert "sketch" in out
    code, _, error = run("make-data", *made["scenes"])
    assert code == 2
    assert "must not be there yet" in error


def test_a_lone_label_is_said_to_tell_nothing(run: Run, pictures: Path, model: str):
    code, out, err = run("classify", pictures, "--labels", "a cat", "--model", model)
    assert (code, out.count("100.0%")) == (0, 3)
    assert err == "diptych: a cat is the only label, so it gets 100 % whatever a picture shows. Add one for all else.\n"
    assert run("classify", pictures, *TWO_LABELS, "--model", model)[2] == ""


# search and index


@pytest.fixture
def indexed(run: Run, pictures: Path, model: str, tmp_path: Path) -> tuple[object, ...]:
    """What names the pictures, their index and its model on a command line."""
    place = (pictures, "--model", model, "--index", tmp_path / "index")
    code, out, err = run("index", "update", *place)
    assert (code, out.split(" in ")[0], err) == (0, "3 files", "")
    return place


def test_search_prints_a_table_best_first(run, indexed, pictures):
    code, out, err = run("search", "a red kite", *indexed)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["score", "picture", "pixels"]
    scores = [float(line.split()[0]) for line in lines[1:]]
    assert (len(scores), scores) == (3, sorted(scores, reverse=True))
    assert {line.split()[1] for line in lines[1:]} == {str(path) for path in pictures.rglob("*.png")}


def test_search_indexes_a_folder_it_does_not_know_and_prints_json(run, pictures, model, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    code, out, _ = run("search", "a boat", pictures, "--model", model, "--json", "--limit", 1, "--within", "deeper")
    assert code == 0
    (row,) = json.loads(out)
    assert (Path(row["path"]).name, row["width"], row["height"]) == ("blue.png", 40, 30)
    assert len(list((tmp_path / "indexes").iterdir())) == 1


def test_search_by_picture_takes_one_and_like_leaves_it_out(run, indexed, pictures):
    red = pictures / "red2.png"
    by_picture = json.loads(run("search", red, *indexed, "--json")[1])
    assert (by_picture[0]["path"], round(by_picture[0]["score"], 2)) == (str(red), 1.0)
    like = json.loads(run("search", "--like", red, *indexed, "--json")[1])
    assert [row["path"] for row in like] == [row["path"] for row in by_picture[1:]]


def test_search_prints_what_scripts_take(run, indexed, pictures):
    """All of it, by date, from a score on; more in test_found.py."""
    everything = run("search", "a boat", *indexed, "--limit", 0, "--paths")[1].splitlines()
    assert sorted(everything) == sorted(str(path) for path in pictures.rglob("*.png"))
    scores = [row["score"] for row in json.loads(run("search", "a boat", *indexed, "--json")[1])]
    best = run("search", "a boat", *indexed, "--min-score", scores[1] - 1e-5, "--print0")[1]
    assert best.count("\0") == 2
    for name, day in (("red2.png", "2021"), ("green10.png", "2023")):
        picture = Image.open(pictures / name)
        exif = Image.Exif()
        exif[306] = f"{day}:01:02 03:04:05"
        picture.save(pictures / name, exif=exif)
    by_date = run("search", "a boat", *indexed, "--sort", "date", "--csv")[1].splitlines()
    assert [Path(line.split(",")[0]).name for line in by_date[1:]] == ["green10.png", "red2.png", "blue.png"]


def test_search_shows_duplicates_as_groups(run, indexed, pictures):
    (pictures / "copy.png").write_bytes((pictures / "red2.png").read_bytes())
    code, out, err = run("search", "--duplicates", "--threshold", 0.99999, *indexed)
    assert (code, [Path(line.split()[1]).name for line in out.splitlines()[1:]]) == (0, ["copy.png", "red2.png"])
    assert [line.split()[-1] for line in out.splitlines()] == [
        "taken",
        "best",
        str((pictures / "copy.png").stat().st_size),
    ]
    assert err == "diptych: 1 groups; 1 pictures could go.\n"


def test_search_names_a_broken_file_once(run, indexed, pictures):
    (pictures / "bad.png").write_text("no picture")
    assert "skipped" in run("search", "a boat", *indexed)[2]
    assert run("search", "a boat", *indexed)[2] == ""
    assert "bad.png must be a picture" in run("index", "status", pictures, *indexed[3:])[2]


def test_search_answers_from_what_there_is_while_another_process_indexes(run, indexed, tmp_path):
    script = f"""
from pathlib import Path
from diptych.files import folder_lock
with folder_lock(Path({str(tmp_path / "index")!r})):
    print(flush=True)
    input()
"""
    with started([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        code, out, err = run("search", "a boat", *indexed)
    assert (code, len(out.splitlines())) == (0, 4)
    assert "comes from what was indexed before" in err


def test_search_says_what_is_wrong_with_a_query(run, fails, indexed, pictures, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "there must be something to search for" in fails("search")
    assert "each part of a query must have words" in fails("search", "", *indexed)
    assert fails("search", "0 * truck", *indexed).startswith("a query must look for something")
    assert "must be a folder of pictures" in fails("search", "dog", tmp_path / "none")
    assert "a day must be like" in fails("search", "dog", *indexed, "--after", "yesterday")
    assert fails("search", "dog", *indexed, "--paths", "--csv").endswith("Leave one of --csv, --paths.")
    assert "--duplicates goes by --threshold" in fails("search", "--duplicates", *indexed, "--sort", "date")
    assert "the best scores" in run("search", "dog", *indexed, "--min-score", 1)[2]
    assert "a place must be" in fails("search", "dog", *indexed, "--near", "Paris")
    assert "no such file exists" in fails("search", "gone.jpg", *indexed)
    other = ("--model", "diptych-pictogram-small")
    assert "made with another model" in fails("search", "dog", pictures, *other, *indexed[3:])


def test_an_index_of_what_was_the_default_before_goes_on_with_it(run, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    assert run("index", "update", pictures, "--model", "diptych-photo")[0] == 0
    (index,) = (tmp_path / "indexes").iterdir()
    for named in ("diptych-photo", ""):  # without: a program made it and did not say
        about = read_about(index)
        assert about
        write_about(index, dataclasses.replace(about, model=named))
        code, out, err = run("search", "red", pictures, "--json")
        assert code == 0, err
        assert "red2.png" in out
    assert run("index", "update", pictures, "--reindex")[0] == 0
    about = read_about(index)
    assert about
    assert about.model == DEFAULT_MODEL
    assert "red2.png" in run("search", "red", pictures, "--json")[1]


def test_what_looks_into_one_model_names_the_two_where_the_default_is_asked_for_by_name(run, fails, pictures, tmp_path):
    assert run("where", pictures / "red2.png", "red", "--json")[0] == 0
    for words in (
        ("where", pictures / "red2.png", "red", "--model", DEFAULT_MODEL),
        ("models", "convert", DEFAULT_MODEL, tmp_path / "out", "--format", "bundle"),
        ("export", DEFAULT_MODEL, tmp_path / "out"),
    ):
        assert "Name diptych-photo, for photographs, or diptych-pictogram" in fails(*words)


def test_an_index_opens_with_its_own_model(run, fails, pictures, model, tmp_path, monkeypatch):
    place = (pictures, "--index", tmp_path / "index")
    shutil.copytree(model, tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    assert run("index", "update", *place, "--model", "own")[0] == 0
    monkeypatch.chdir(pictures)
    for words in (("search", "a boat"), ("index", "update"), ("index", "status"), ("index", "repair")):
        assert run(*words, *place)[0] == 0, words
    said = json.loads(run("index", "status", *place, "--json")[1])["model"]
    assert said == str(tmp_path / "own")
    assert run("search", "a boat", *place, "--model", said)[0] == 0
    other = fails("search", "a boat", *place, "--model", "diptych-pictogram-small")
    cure = re.search(r"diptych (index update .*) --reindex", other)
    assert cure
    assert run(*shlex.split(cure[1]), "--reindex")[0] == 0
    assert json.loads(run("index", "status", *place, "--json")[1])["model"] == "diptych-pictogram-small"
    run("index", "update", *place, "--model", said, "--reindex")
    (tmp_path / "own").rename(tmp_path / "gone")
    assert f"was made with the model {said}, which cannot be loaded" in fails("search", "a boat", *place)
    assert run("search", "a boat", *place, "--model", tmp_path / "gone")[0] == 0


def test_a_folder_without_a_query_and_a_mistyped_folder_are_refused(fails, run, pictures, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is a folder, and there is no query" in fails("search", "pictures")
    for words in (("pictures", "dog"), ("pictures", "two dogs", "here")):
        assert f"diptych search {shlex.quote(' '.join(words[1:]))} pictures." in fails("search", *words)
    for words in (("pictures/none",), ("two", "dogs", "./picturs"), ("two", "dogs", "picturs/"), ("a", "b", "/none")):
        assert f"and {words[-1]} is none." in fails("search", *words)
    assert "Did you mean pictures?" in fails("search", "two", "dogs", "Picturs")
    monkeypatch.chdir(pictures)
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    for words in (("a", "red", "kite"), ("24/7 diner",), ("deeper/blue.png",), ("kite/boat",), ("a kite + boat",)):
        assert run("search", *words, "--model", model)[0] == 0, words


@pytest.mark.parametrize(
    ("answer", "is_yes"), [("\n", True), ("Yes\n", True), ("n\n", False), ("", False), ("what\n", False)]
)
def test_a_folder_before_the_words_is_asked_about_at_a_terminal(
    run, fails, pictures, model, tmp_path, monkeypatch, answer, is_yes
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    asked = "diptych: search for “a kite” in pictures? [Y/n] "
    words = ("search", "pictures", "a", "kite", "--model", model, "--no-progress")
    code, out, err = run(*words, "--paths")
    assert err.startswith(asked)
    if is_yes:
        assert (code, sorted(out.split())) == (0, sorted(str(path) for path in pictures.rglob("*.png")))
    else:
        assert (code, out) == (2, "")
        assert "diptych search 'a kite' pictures." in err
    assert not run(*words, "--quiet")[2].startswith(asked)


def test_what_may_only_be_away_is_said_with_the_way_to_forget_it(run, fails, indexed, pictures, tmp_path):
    place = (pictures, *indexed[3:])
    (pictures / "deeper" / "blue.png").unlink()
    err = run("search", "a boat", *place)[2]
    assert err == (
        f"diptych: 1 files are gone and stay in the index, as {pictures / 'deeper'} is empty. "
        f"If they are gone for good: diptych index update {pictures} --index {tmp_path / 'index'} --forget.\n"
    )
    code, out, _ = run("index", "update", *place, "--forget")
    assert (code, "1 deleted" in out) == (0, True)
    for path in pictures.rglob("*.png"):
        path.unlink()
    assert "holds no picture any more, and 2 are in its index" in fails("index", "update", *place)


def test_what_is_passed_over_is_counted_and_named(run, indexed, pictures):
    (pictures / "@eaDir").mkdir()
    (pictures / "a.psd").touch()
    (pictures / "loop.png").symlink_to("loop.png")
    for again in (False, True):
        err = run("index", "update", *indexed)[2]
        assert "1 not read: a Photoshop file (.psd), which has no reader here, e.g. a.psd." in err, again
        assert "loop.png cannot be looked at: Too many levels of symbolic links." in err
        assert "left out by rule: 1 @eaDir/." in err
    assert run("search", "a boat", *indexed)[2] == ""  # said before
    code, out, err = run("index", "status", pictures, *indexed[3:])
    assert ("1 @eaDir/" in out, "1 a Photoshop file" in out, "loop.png" in err) == (True, True, True)
    code, _, err = run("classify", pictures, *TWO_LABELS, "--model", indexed[2])
    assert (code, "loop.png" in err, ".psd" in err) == (0, True, True)


def test_names_of_any_bytes_come_out_as_plain_json(run, indexed, pictures):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (pictures / "red2.png").rename(pictures / name)
    except OSError:
        pytest.skip("this file system takes no such name")
    answered = json.loads(run("classify", pictures, *TWO_LABELS, "--model", indexed[2], "--json")[1])["images"]
    found = json.loads(run("search", "a red kite", *indexed, "--json")[1])
    for rows in (answered, found):
        assert str(pictures / r"caf\xe9.png") in [row["path"] for row in rows]
    code, _, err = run("index", "update", *indexed)
    assert (code, err) == (0, "")


BEFORE_TORCH = """
import contextlib, io, json, sys
from diptych.cli.main import app, main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(words)
    print(code, "torch" in sys.modules, err.getvalue().strip())
"""


def test_what_is_wrong_in_a_command_line_is_told_before_torch_is_loaded(pictures, tmp_path):
    place = str(pictures)
    tries = [
        ["search", "dog", place, "--after", "yesterday"],
        ["search", "dog", place, "--near", "Paris"],
        ["search", "", place],
        ["search", place],
        ["search", "dog", place, "--model", "diptych-foto"],
        ["index", "update", place, "--model", "diptych-foto"],
        ["classify", place, "--labels", "a", "--model", "diptych-foto"],
        ["embed", place, "--out", str(tmp_path / "x.npz"), "--model", "diptych-foto"],
        ["filter", place, "--deny-list", "none", "--threshold", "0.3", "--model", "diptych-foto"],
    ]
    command = [sys.executable, "-c", BEFORE_TORCH, json.dumps(tries)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    said = done.stdout.splitlines()
    assert [line[:8] for line in said] == ["2 False "] * len(tries)
    assert all("Did you mean diptych-photo" in line for line in said[4:])


def test_patterns_leave_out_and_are_remembered(run, indexed):
    assert " 1 deleted" in run("index", "update", *indexed, "--exclude", "/deeper/")[1]
    assert run("index", "update", *indexed)[1].startswith("2 files")
    assert " 1 added" in run("index", "update", *indexed, "--exclude", "")[1]


def test_indexes_are_listed_moved_and_removed(run, fails, pictures, model, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_INDEXES", str(tmp_path / "indexes"))
    assert run("index", "list") == (0, "", "diptych: no index lies in the cache.\n")
    run("index", "update", pictures, "--model", model)
    new = pictures.rename(tmp_path / "new")
    assert "gone" in run("index", "list")[1]
    assert run("index", "move", pictures, new)[0] == 0
    (row,) = json.loads(run("index", "list", "--json")[1])
    assert (row["folder"], row["is_there"], row["files"]) == (str(new), True, 3)
    assert " 0 added" in run("index", "update", new)[1]
    assert run("index", "remove", new)[0] == 0
    assert "must have an index" in fails("index", "status", new)


def test_a_damaged_index_is_mended_by_the_command_that_its_message_names(run, fails, indexed, pictures):
    place = (pictures, *indexed[3:])
    (features,) = indexed[4].rglob("*.f32")
    data = bytearray(features.read_bytes())
    data[40] ^= 1
    features.write_bytes(data)
    for words in (("search", "a boat"), ("index", "check")):
        cure = re.search(r"diptych (index repair .*)\.$", fails(*words, *place))
        assert cure
    code, out, err = run(*shlex.split(cure[1]))
    assert (code, "3 encoded anew" in out, "3 files had damaged features" in err) == (0, True, True)
    assert run("index", "check", *place)[0] == 0


def test_search_finds_nothing_and_says_why(run, indexed):
    assert run("search", "dog", *indexed, "--camera", "x") == (
        0,
        "",
        "diptych: nothing was found: no picture passes the filters.\n",
    )


def test_index_is_checked_compacted_copied_and_exported(run, fails, indexed, pictures, tmp_path):
    place = (pictures, *indexed[3:])
    assert run("index", "check", *place)[:2] == (0, "3 rows are whole\n")
    (pictures / "red2.png").unlink()
    run("index", "update", *indexed)
    assert run("index", "compact", *place)[:2] == (0, "1 rows were cleared away\n")
    assert run("index", "export", tmp_path / "x.npz", *place)[0] == 0
    with np.load(tmp_path / "x.npz") as file:
        assert sorted(file["keys"].tolist()) == ["deeper/blue.png", "green10.png"]
    assert run("index", "copy", tmp_path / "copy", *place)[0] == 0
    status = json.loads(run("index", "status", pictures, "--index", tmp_path / "copy", "--json")[1])
    assert (status["files"], status["rows"], status["removed rows"]) == (2, 2, 0)
    next((tmp_path / "copy").rglob("*.f32")).write_bytes(b"")
    assert "is damaged: features-1.f32 must hold 2 rows" in fails(
        "index", "check", pictures, "--index", tmp_path / "copy"
    )
    assert "must have an index" in fails("index", "status", tmp_path, "--index", tmp_path / "none")


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"TERM_PROGRAM": "iTerm.app", "TMUX": "1"}, None),
        ({"TERM": "xterm-256color"}, None),
    ],
)
def test_terminals_that_show_pictures_are_told_by_their_environment(environment, protocol):
    assert thumbnails.protocol_of(environment, is_terminal=True) == protocol
    assert thumbnails.protocol_of(environment, is_terminal=False) is None


def test_escapes_hold_the_whole_picture():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(file, "JPEG")
    jpeg = file.getvalue()
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", thumbnails.kitty(jpeg))
    assert [options.rsplit("m=")[1] for options, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert max(len(data) for _, data in chunks) <= 4096
    shown = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in chunks))))
    assert (shown.format, shown.size) == ("PNG", (120, 90))
    assert base64.b64decode(thumbnails.iterm(jpeg).split(":")[1].rstrip("\x07")) == jpeg


def test_embed_grows_a_folder_of_parts(run, fails, pictures, model, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "f.parquet"
    words = ("embed", pictures, "--model", model, "--out", out, "--part-size", 2, "--world-size", 2, "--rank")
    shares = [run(*words, rank) for rank in (0, 1)]
    assert [done[1] for done in shares] == [
        f"2 samples -> {out}; 0 skipped; 1 parts of this rank are there\n",
        f"1 samples -> {out}; 0 skipped; 1 parts of this rank are there\n",
    ]
    assert sorted(pq.read_table(out)["key"].to_pylist()) == ["deeper/blue.png", "green10.png", "red2.png"]
    assert "made of one source" in fails("embed", pictures, pictures, "--model", model, "--out", out)
    (tmp_path / "folder.npz").mkdir()
    assert "and is a folder" in fails("embed", pictures, "--model", model, "--out", tmp_path / "folder.npz")


def test_embed_with_daft_prints_what_the_own_engine_does(run, fails, pictures, model, tmp_path):
    out = tmp_path / "f.parquet"
    words = ("embed", pictures, "--model", model, "--part-size", 2, "--runner", "daft", "--out")
    assert "with daft, features are written to NAME.parquet" in fails(*words, tmp_path / "f.npz")
    assert "made of one source" in fails(*words, out, pictures)
    if importlib.util.find_spec("daft") is None:
        assert "pip install 'diptych[daft]'" in fails(*words, out)
        return
    command = [sys.executable, "-m", "diptych", *map(str, words), out]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert shown.stdout == f"3 samples -> {out}; 0 skipped; 2 parts of this rank are there\n", shown.stderr
    assert shown.stderr == ""


def test_filter_names_what_the_list_denies(run, fails, pictures, model, tmp_path):
    (tmp_path / "deny.txt").write_text("a red kite\na blue boat\n")
    words = ("filter", pictures, "--model", model, "--deny-list", tmp_path / "deny.txt")
    code, out, err = run(*words, "--threshold", -1)
    assert (code, len(out.splitlines()), err) == (0, 3, "diptych: 3 of 3 pictures are denied.\n")
    scores = [float(line.split()[0]) for line in out.splitlines()]
    assert scores == sorted(scores, reverse=True)
    assert run(*words, "--threshold", 1.1)[1:] == ("", "diptych: 0 of 3 pictures are denied.\n")
    for kind, name in (("deny", "red2.png"), ("keep", "green10.png")):
        (tmp_path / "examples" / kind).mkdir(parents=True)
        (tmp_path / "examples" / kind / name).write_bytes((pictures / name).read_bytes())
    code, out, err = run(*words, "--examples", tmp_path / "examples", "--max-false", 0, "--json")
    answer = json.loads(out)
    assert "green10.png" not in [Path(row["path"]).name for row in answer["denied"]]
    assert all(row["score"] >= answer["threshold"] - 1e-6 for row in answer["denied"])
    assert "of 1 to deny and 0.0% of 1 to keep" in err
    assert "either --threshold or --examples" in fails(*words)
