"""House rules: imports go down, files are short, floor plan, `__all__` and docs are true, a test ends."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import cyclopts
import pytest

import diptych

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "diptych"
PLAN = ROOT / "docs" / "floor-plan.md"
COMMANDS = ROOT / "docs" / "commands.md"
API = ROOT / "docs" / "api.md"

# Files of src that have no test file of their own name, and where they are tested instead.
TESTED_ELSEWHERE = {
    "__init__.py": "test_house.py",  # `__all__`, and that nothing heavy is loaded
    "__main__.py": "test_cli.py",  # the same entry as the command
    "cli/": "test_cli.py",  # commands are tested as a user calls them
    "cli/curate.py": "test_curate.py",
    "cli/found.py": "test_found.py",
    "cli/audit.py": "test_audit.py",
    "cli/audit_wording.py": "test_console_chapter.py",
    "cli/console_chapter.py": "test_console_chapter.py",
    "cli/caption.py": "test_caption.py",
    "cli/audit_pointing.py": "test_pointing.py",
    "cli/mcp.py": "test_assistant.py",
    "cli/where.py": "test_where.py",
    "weights/disk_layouts.py": "test_stored.py",
    "cli/segment.py": "test_where.py",
    "cli/keeping_step.py": "test_keeping_step.py",
    "cli/curate_queries.py": "test_curate_queries.py",
    "errors.py": "test_config.py",  # no logic but one sentence; every test of a message covers it
    "serve/answers.py": "test_app.py",  # what a request that goes wrong gets
    "serve/messages.py": "test_app.py",
    "serve/derived.py": "test_browse.py",
    "serve/monitor.py": "test_app.py",
    "serve/refusals.py": "test_app.py",
    "sets/labelled.py": "test_open.py",  # both layouts are read by the one door
    "data/embedded.py": "test_pictograms.py",  # one function, which every test on the embedded pairs goes through
}
# Test files that mirror no file of src.
WHOLE_HOUSE_TESTS = {
    "test_audit.py",
    "test_benchmarks.py",
    "test_house.py",
    "test_parity.py",
    "test_ranks.py",
    "test_readme.py",
    "test_cli.py",
    "test_pictograms.py",
    "test_photo_translations.py",
    "test_pictogram_languages.py",
    "test_without_torch.py",
    "test_zoo.py",
    "test_serve.py",
    "test_tour.py",
    "test_serve_page.py",
    "test_serve_page_access.py",
    "test_serve_page_hands.py",
}


# The most lines of a file, and of a function's body without its docstring.
FILE_LINES, FUNCTION_LINES = 450, 60
CLOCKS = {f"time.{name}" for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")}


# What Python has on some systems alone: modules, and names of modules that are everywhere.
POSIX_MODULES = {"crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": "chown fchmod fchown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpriority getsid "
    "getuid killpg lchown major minor mkfifo mknod nice openpty pathconf posix_fadvise posix_fallocate posix_spawn "
    "pread preadv pwrite pwritev register_at_fork sched_getaffinity sched_setaffinity sched_yield sendfile setpgid "
    "setpriority setsid setuid statvfs sync sysconf uname wait wait3 wait4 waitid O_CLOEXEC O_DIRECTORY O_NOCTTY "
    "O_NOFOLLOW O_NONBLOCK O_SYNC O_TMPFILE O_PATH",
    "signal": "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm "
    "pause pthread_kill pthread_sigmask setitimer sigwait siginterrupt",
    "socket": "AF_UNIX",
    "select": "epoll kqueue poll",
    "time": "clock_getres tzset",
    "mmap": "MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
}


@dataclass(frozen=True)
class Entry:
    """One line of the floor plan."""

    path: str  # below src/diptych, a folder with "/" at its end
    floor: int


def floor_plan() -> list[Entry]:
    """The entries of the map; a file has the floor of its folder where it states none itself."""
    block = PLAN.read_text(encoding="utf-8").split("```text")[1].split("```")[0]
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
    """Every module of ours that a file imports, at its top or within a function."""
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
        yield from (name for name in names if name.split(".")[0] == "diptych")


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


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, as one line; empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def module_of(path: str) -> str:
    """The dotted name of a file below src/diptych."""
    return ".".join(["diptych", *path.removesuffix(".py").split("/")]).removesuffix(".__init__")


def imports_among(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which file imports which, of those given: source by path below src/diptych."""
    paths = {module_of(path): path for path in sources}
    return {
        path: {paths[name] for module in imported_modules(source) for name in (module, module.rpartition(".")[0])
               if name in paths and paths[name] != path}
        for path, source in sources.items()
    }  # fmt: skip


def long_parts(path: str, source: str) -> dict[str, int]:
    """Lines of the file and of functions, where these are more than the rule allows."""
    found = {path: len(source.splitlines())} if len(source.splitlines()) > FILE_LINES else {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > FUNCTION_LINES:
                found[f"{path} {node.name}"] = lines
    return found


def stopwatches(source: str) -> list[int]:
    """Lines on which a time that has passed is worked out: a clock's reading less something, or something less it.

    A deadline is none: `time.monotonic() < end` ends a wait and is no measurement.
    """

    def reads_clock(node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func) in CLOCKS

    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Sub)
            and (reads_clock(node.left) or reads_clock(node.right))
        )
        or (isinstance(node, ast.Import | ast.ImportFrom) and "timeit" in ast.unparse(node))
    ]


def endless(source: str) -> list[int]:
    """Lines that start a process and do not say when it ends; `started` of tests/processes.py says it."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and re.fullmatch(r"subprocess\.(run|call|check_call|check_output|Popen)", ast.unparse(node.func))
        and "timeout" not in {keyword.arg for keyword in node.keywords}
    ]


def posix_alone(source: str) -> list[str]:
    """What a file takes for granted and Windows lacks: imports outside of a `try`, names without `hasattr`."""
    tree = ast.parse(source)
    caught = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any("ImportError" in ast.unparse(one.type or node) for one in node.handlers)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in caught:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += sorted(POSIX_MODULES & set(names))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if name in POSIX_NAMES.get(owner, "").split() and f'hasattr({owner}, "{name}")' not in source:
                found.append(f"{owner}.{name}")
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
        ("cli/demo.py", "import diptych\ndiptych.__version__", False),
        ("eval/conditions.py", "from diptych.version import __version__", True),
        ("cli/demo.py", "from diptych import train", True),
        ("cli/demo.py", "from diptych import load", False),
    ],
)
def test_the_import_check_sees_what_it_should(path: str, source: str, allowed: bool):
    assert (upward_imports({path: source}, wing_floors()) == []) == allowed


def test_no_file_imports_itself_by_way_of_others():
    """Not within a wing either, where the floor plan says nothing, nor by imports in functions."""
    assert circles(imports_among({path: (SRC / path).read_text(encoding="utf-8") for path in python_files()})) == []


def test_the_circle_check_sees_one():
    one = {"eval/a.py": "from diptych.eval.b import x", "eval/b.py": "def f():\n    from diptych.eval import c"}
    assert circles(imports_among(one | {"eval/c.py": "import diptych.errors"})) == []
    assert circles(imports_among(one | {"eval/c.py": "import diptych.eval.a"})) != []


def test_files_and_functions_stay_short():
    found: dict[str, int] = {}
    for path in python_files():
        found |= long_parts(path, (SRC / path).read_text(encoding="utf-8"))
    assert found == {}


def test_the_length_check_counts_a_body_without_its_docstring():
    lines = "\n".join(["    x = 1"] * FUNCTION_LINES)
    assert long_parts("a.py", f'def f():\n    """{chr(10) * 99}"""\n{lines}\n') == {}
    assert long_parts("a.py", f"def f():\n{lines}\n    y = 1\n") == {"a.py f": FUNCTION_LINES + 1}
    assert long_parts("a.py", "x = 1\n" * (FILE_LINES + 1)) == {"a.py": FILE_LINES + 1}


def test_nothing_is_taken_for_granted_that_windows_lacks():
    found = {path: posix_alone((SRC / path).read_text(encoding="utf-8")) for path in python_files()}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_check_for_windows_sees_what_it_should():
    assert posix_alone("def f():\n    import fcntl\n") == ["fcntl"]
    assert posix_alone("from resource import getrusage\n") == ["resource"]
    assert posix_alone("import os\nos.sysconf('A')\nos.kill(1, signal.SIGKILL)\n") == ["os.sysconf", "signal.SIGKILL"]
    assert posix_alone("try:\n    import fcntl\nexcept ImportError:\n    import msvcrt\n") == []
    assert posix_alone('f = os.sysconf if hasattr(os, "sysconf") else None\n') == []


def test_the_package_starts_without_what_windows_lacks():
    """Every module is imported, and no import of ours finds a module that POSIX alone has."""
    modules = [module_of(path) for path in python_files()]
    script = f"""
import builtins, importlib
usual = builtins.__import__
def as_on_windows(name, globals=None, *rest):
    if name in {POSIX_MODULES!r} and str((globals or {{}}).get("__name__")).startswith("diptych"):
        raise ImportError(name)
    return usual(name, globals, *rest)
builtins.__import__ = as_on_windows
for module in {modules!r}:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "mcp":  # an SDK that need not be installed
            raise
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=300)


def test_tests_hold_no_stopwatch_and_every_process_has_an_end():
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py")}
    assert {name: lines for name, source in sources.items() if (lines := stopwatches(source))} == {}
    allowed = {"processes.py"}  # where the end is made
    assert {name: lines for name, source in sources.items() if (lines := endless(source)) and name not in allowed} == {}


def test_the_checks_of_tests_see_what_they_should():
    assert stopwatches("while time.monotonic() < end: pass") == []
    assert stopwatches("a = 1\nassert time.perf_counter() - begun < 1") == [2]
    assert endless("subprocess.run(['ls'], timeout=5)") == []
    assert endless("subprocess.run(['ls'])\nsubprocess.Popen(['ls'])") == [1, 2]


def test_the_floor_plan_is_the_tree():
    listed = [entry.path for entry in floor_plan()]
    assert len(listed) == len(set(listed)), "an entry comes twice"
    absent = [path for path in listed if not (SRC / path).exists()]
    assert absent == [], "listed in docs/floor-plan.md, absent in src/diptych"
    of_folders = {path for path in python_files() if path.endswith("/__init__.py")}
    assert set(python_files()) - of_folders == {path for path in listed if path.endswith(".py")}


def test_files_beside_the_code_go_into_the_wheel():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"][
        "diptych"
    ]
    packed = {path for pattern in patterns for path in SRC.glob(pattern)}
    beside = {path for path in SRC.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert beside - packed == set(), "see package-data in pyproject.toml"


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


def test_the_page_of_the_python_interface_keeps_what_the_face_offers():
    """Under *Kept* stands `__all__`, each name at its home; what stands under *Inside* exists, too."""
    kept, inside = (
        re.findall(r"^::: (\S+)$", section, re.M)
        for section in re.split(r"^## (?:Kept|Inside)$", API.read_text(encoding="utf-8"), flags=re.M)[1:]
    )
    assert sorted(kept) == sorted(f"{home}.{name}" for name, home in diptych._HOMES.items())
    for place in inside:
        module, _, name = place.rpartition(".")
        assert getattr(importlib.import_module(module), name).__module__ == module, place
    assert len(set(inside)) == len(inside)


@pytest.mark.parametrize("path", [path for path in python_files() if ">>> " in (SRC / path).read_text("utf-8")])
def test_examples_in_docstrings_hold(path: str):
    module = importlib.import_module(module_of(path))
    failed, tried = doctest.testmod(module)  # prints what differs
    assert (failed, tried > 0) == (0, True)


# Public classes that two files define under one name, until one of them gets another.
DEFINED_TWICE = {  # a name in the OpenAPI description, which clients may have generated code from
    "Embedding",  # model/blocks.py, serve/messages.py
    "Filters",  # search/query.py, serve/messages.py
}


def test_a_public_class_name_is_defined_once():
    found = Counter(
        node.name
        for path in python_files()
        for node in ast.parse((SRC / path).read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert {name for name, count in found.items() if count > 1} - DEFINED_TWICE == set()


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
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
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
            if name not in (*argument.negatives, "*"):  # "*" holds the options of several commands
                yield name if argument.index is None else name.lstrip("-").upper()


def test_every_option_is_in_the_docs():
    from diptych.cli.main import app

    sections = dict(re.findall(r"^## `(diptych [^`]+)`\n(.*?)(?=^## |\Z)", COMMANDS.read_text("utf-8"), re.M | re.S))
    exist = {name: sorted(options(sub)) for name, sub in commands(app)}
    documented = {name: sorted(re.findall(r"^\| `([^`]+)` \|", text, re.M)) for name, text in sections.items()}
    assert documented == exist
