"""House rules: imports go down, `__all__` is true, the floor plan is the tree, every option is in the docs."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cyclopts
import pytest

import diptych

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "diptych"
PLAN = ROOT / "docs" / "floor-plan.md"
COMMANDS = ROOT / "docs" / "commands.md"

# Files of src that have no test file of their own name, and where they are tested instead.
TESTED_ELSEWHERE = {
    "__init__.py": "test_house.py",  # `__all__`, and that nothing heavy is loaded
    "__main__.py": "test_cli.py",  # the same entry as the command
    "cli/": "test_cli.py",  # commands are tested as a user calls them
    "errors.py": "test_config.py",  # no logic but one sentence; every test of a message covers it
    "serve/answers.py": "test_app.py",  # what a request that goes wrong gets
    "serve/messages.py": "test_app.py",
    "serve/monitor.py": "test_app.py",
    "serve/refusals.py": "test_app.py",
    "sets/labelled.py": "test_open.py",  # both layouts are read by the one door
    "data/embedded.py": "test_pictograms.py",  # one function, which every test on the embedded pairs goes through
}
# Test files that mirror no file of src.
WHOLE_HOUSE_TESTS = {
    "test_house.py",
    "test_parity.py",
    "test_readme.py",
    "test_cli.py",
    "test_pictograms.py",
    "test_serve.py",
}


@dataclass(frozen=True)
class Entry:
    """One line of the floor plan."""

    path: str  # below src/diptych, a folder with "/" at its end
    floor: int


def floor_plan() -> list[Entry]:
    """The entries of the map; a file has the floor of its folder where it states none itself."""
    block = PLAN.read_text(encoding="utf-8").split("```")[1]
    lines = block.strip("\n").splitlines()
    assert lines[0] == "src/diptych/"
    entries: list[Entry] = []
    folder = Entry("", -1)
    for line in lines[1:]:
        match = re.fullmatch(r"( {2}| {4})([\w./]+) +(?:(\d) +)?\S.*", line)
        assert match, f"a line of the floor plan must be: NAME [FLOOR] MEANING. Got {line!r}."
        indent, name, floor = match.groups()
        if len(indent) == 2:
            assert floor, f"{name} stands on no floor"
            entries.append(Entry(name, int(floor)))
            folder = entries[-1]
        else:
            entries.append(Entry(folder.path + name, folder.floor))
    return entries


def wing_of(name: str) -> str:
    """The part of the house that a dotted name is in, as the plan writes it: "train/", "config.py"."""
    part = name.split(".")[1]
    if (SRC / part).is_dir():
        return f"{part}/"
    return f"{part}.py" if (SRC / f"{part}.py").is_file() else "__init__.py"  # a name of the face


def imported_modules(source: str) -> Iterator[str]:
    """Every module of ours that a file imports, at its top or within a function.

    The version number belongs to everyone: reading `diptych.__version__` alone is no import of the face.
    """
    nodes = list(ast.walk(ast.parse(source)))
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name != "diptych"]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "diptych":
            names = [f"diptych.{node.attr}"]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "diptych" and name != "diptych.__version__")


def upward_imports(files: dict[str, str], floors: dict[str, int]) -> list[str]:
    """Imports that the floor plan forbids. `files` is source by path below src/diptych."""
    found = []
    for path, source in files.items():
        wing = path.split("/")[0] + ("/" if "/" in path else "")
        for module in imported_modules(source):
            other = wing_of(module)
            if other != wing and floors[other] >= floors[wing]:
                found.append(f"{path} (floor {floors[wing]}) imports {module} (floor {floors[other]})")
    return found


def python_files() -> list[str]:
    return sorted(path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py"))


def wing_floors() -> dict[str, int]:
    return {entry.path: entry.floor for entry in floor_plan() if "/" not in entry.path.rstrip("/")}


def test_imports_go_down_only():
    sources = {path: (SRC / path).read_text(encoding="utf-8") for path in python_files()}
    assert upward_imports(sources, wing_floors()) == []


@pytest.mark.parametrize(
    ("path", "source", "allowed"),
    [
        ("train/loss.py", "from diptych.model.clip import CLIP", True),
        ("train/loss.py", "from diptych.train.optim import x", True),
        ("train/loss.py", "def f():\n    from diptych.eval.suite import x", False),
        ("train/loss.py", "import diptych.embed as e", False),  # both on floor 4
        ("data/tar.py", "from diptych.model.clip import CLIP", False),
        ("data/tar.py", "from diptych.measures.metrics import Interval", False),
        ("pairs/shards.py", "from diptych.sets.pictures import Pictures", False),  # both on floor 3
        ("pages/run.py", "from diptych.serve.app import x", False),
        ("config.py", "from diptych.errors import ConfigError", True),
        ("config.py", "from diptych.files import sha256", False),
        ("cli/demo.py", "import diptych\ndiptych.load()", False),  # the face is above
        ("cli/demo.py", "import diptych\ndiptych.__version__", True),
        ("cli/demo.py", "from diptych import train", True),
        ("cli/demo.py", "from diptych import load", False),
    ],
)
def test_the_import_check_sees_what_it_should(path: str, source: str, allowed: bool):
    assert (upward_imports({path: source}, wing_floors()) == []) == allowed


def test_the_floor_plan_is_the_tree():
    listed = [entry.path for entry in floor_plan()]
    assert len(listed) == len(set(listed)), "an entry comes twice"
    absent = [path for path in listed if not (SRC / path).exists()]
    assert absent == [], "listed in docs/floor-plan.md, absent in src/diptych"
    of_folders = {path for path in python_files() if path.endswith("/__init__.py")}
    assert set(python_files()) - of_folders == {path for path in listed if path.endswith(".py")}


def test_files_that_only_make_a_folder_a_package_are_empty():
    assert [p for p in python_files() if p.endswith("/__init__.py") and (SRC / p).read_text()] == []


def test_every_public_name_resolves_to_its_home():
    for name in diptych.__all__:
        value = getattr(diptych, name)
        if name in diptych._HOMES:
            assert value.__module__ == diptych._HOMES[name], name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        diptych.nothing  # noqa: B018


def test_the_face_lists_the_same_names_three_times():
    """`__all__` for people, `_HOMES` for loading, and the imports that type checkers read."""
    tree = ast.parse((SRC / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == diptych._HOMES
    assert set(diptych.__all__) == {*diptych._HOMES, "__version__"}
    assert dir(diptych) == sorted(diptych.__all__)


def test_only_the_command_line_prints():
    found = [
        f"{path}:{node.lineno}"
        for path in python_files()
        if not path.startswith("cli/")
        for node in ast.walk(ast.parse((SRC / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert found == []


def test_every_file_has_a_test_file():
    tests = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    sources = [path for path in python_files() if not path.endswith("/__init__.py")]
    bearers = Counter(Path(path).name for path in sources if not path.startswith("cli/"))
    twice = {name for name, count in bearers.items() if count > 1}

    def home(path: str) -> str:
        folder, name = path.split("/")[0], Path(path).name
        own = f"test_{folder}_{name}" if name in twice else f"test_{name}"
        return TESTED_ELSEWHERE.get(path) or TESTED_ELSEWHERE.get(f"{folder}/") or own

    assert {path: home(path) for path in sources if home(path) not in tests} == {}
    assert tests - {home(path) for path in sources} - WHOLE_HOUSE_TESTS == set(), "tests of nothing in src"


def test_help_and_import_do_without_torch():
    script = """
import contextlib, io, sys
import diptych, diptych.cli.main
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    sys.argv = ["diptych", "--help"]
    diptych.cli.main.main()
heavy = sorted({"torch", "numpy", "PIL", "grain", "matplotlib", "tokenizers"} & set(sys.modules))
print("classify" in out.getvalue(), heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


def commands(app: cyclopts.App, path: tuple[str, ...] = ("diptych",)) -> Iterator[tuple[str, cyclopts.App]]:
    if app.default_command and len(path) > 1:
        yield " ".join(path), app
    for name, sub in app.resolved_commands().items():
        if not name.startswith("-"):
            yield from commands(sub, (*path, name))


def options(app: cyclopts.App) -> Iterator[str]:
    """Names as a user types them: --option, or ARGUMENT for what goes by its place."""
    for argument in app.assemble_argument_collection():
        for name in argument.names:
            if name not in argument.negatives:
                yield name if argument.index is None else name.lstrip("-").upper()


def test_every_option_is_in_the_docs():
    from diptych.cli.main import app

    sections = dict(re.findall(r"^## `(diptych [^`]+)`\n(.*?)(?=^## |\Z)", COMMANDS.read_text("utf-8"), re.M | re.S))
    exist = {name: sorted(options(sub)) for name, sub in commands(app)}
    documented = {name: sorted(re.findall(r"^\| `([^`]+)` \|", text, re.M)) for name, text in sections.items()}
    assert documented == exist
