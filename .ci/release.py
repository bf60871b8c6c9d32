"""Is this commit ready to be a release? Builds it, tries the wheel in a clean environment, and prints the tag command.

    make release

What goes in is the commit, not the working tree. Writes dist/; tags, pushes and uploads nothing. All that is missing is
said at once, and the exit code is then 1.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
PICTURE, LABELS = "docs/images/examples/red-apple.png", ("a red apple", "a sailboat", "a crying face")
SECONDS = 1800
# What must not travel: neither in the wheel nor in the sdist.
STRAY = re.compile(r"(^|/)(tests|__pycache__|\.[^/]+_cache|\.hypothesis|runs|benchmarks|recipes)/|\.pyc$")


def main() -> int:
    version = re.findall(r'^__version__ = "(.+)"$', git("show", "HEAD:src/diptych/version.py"), re.M)[0]
    problems = commit_problems(version)
    with tempfile.TemporaryDirectory() as scratch:
        print(f"building diptych {version} and trying its wheel; this takes minutes", flush=True)
        wheel, sdist, drawings = build(Path(scratch), version)
        problems += content_problems(wheel, sdist)
        problems += drawings_problems(drawings)
        problems += use_problems(wheel, drawings, Path(scratch), version)
    for problem in problems:
        print(f"not ready: {problem}", file=sys.stderr)
    if problems:
        return 1
    print(f"{wheel.name}, {sdist.name} and {drawings.name} are in dist/, and work. To release them:\n")
    print(f'    git tag --annotate v{version} --message "diptych {version}" {git("rev-parse", "HEAD").strip()}')
    print(f"    git push origin v{version}")
    return 0


def commit_problems(version: str) -> list[str]:
    """What the commit lacks to be the version that it says it is."""
    problems = []
    if git("status", "--porcelain").strip():
        problems.append("the working tree has changes that are in no commit. Commit them, or put them aside.")
    if git("tag", "--list", f"v{version}").strip():
        problems.append(f"v{version} is a tag already. Raise the version in src/diptych/version.py and CITATION.cff.")
    section = rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n(.*?)(?=^## |\Z)"
    told = re.findall(section, git("show", "HEAD:CHANGELOG.md"), re.M | re.S)
    if not told or not re.search(r"^- ", told[0], re.M):
        problems.append(f"CHANGELOG.md has no `## [{version}] - YYYY-MM-DD` with what is new. Move it from Unreleased.")
    return problems


def build(scratch: Path, version: str) -> tuple[Path, Path, Path]:
    """Wheel and sdist of the commit, and the wheel of its drawings, in dist/."""
    source = scratch / "source"
    (scratch / "commit.tar").write_bytes(run("git", "archive", "HEAD", text=False))
    with tarfile.open(scratch / "commit.tar") as tar:
        tar.extractall(source, filter="data")
    python = environment(scratch / "build")
    run(python, "-m", "pip", "install", "-q", "build")
    run(python, "-m", "build", "--outdir", DIST, source)
    run(python, "-m", "build", "--wheel", "--outdir", DIST, source / "src" / "diptych_pictograms")
    (drawings,) = sorted(DIST.glob("diptych_pictograms-*.whl"))
    return DIST / f"diptych-{version}-py3-none-any.whl", DIST / f"diptych-{version}.tar.gz", drawings


def content_problems(wheel: Path, sdist: Path) -> list[str]:
    """Files that the wheel lacks or should not have: its package is what git has below src/diptych/."""
    tracked = tracked_below("src/diptych/")
    with zipfile.ZipFile(wheel) as file:
        inside = set(file.namelist())
    with tarfile.open(sdist) as tar:
        sent = {name.partition("/")[2].removeprefix("src/") for name in tar.getnames()}
    package = {name for name in inside if ".dist-info/" not in name}
    problems = [f"the wheel lacks {name}: see package-data in pyproject.toml." for name in sorted(tracked - package)]
    problems += [f"the wheel holds {name}, which is not in git below src/." for name in sorted(package - tracked)]
    problems += [f"the sdist lacks src/{name}." for name in sorted(tracked - sent)]
    return problems + [f"{name} must not travel." for name in sorted(inside | sent) if STRAY.search(name)]


def drawings_problems(wheel: Path) -> list[str]:
    """The same of the drawings, whose package is their folder."""
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
    tracked = {name for name in tracked_below("src/diptych_pictograms/") if not name.endswith("pyproject.toml")}
    problems = [f"the drawings' wheel lacks {name}: see their pyproject.toml." for name in sorted(tracked - inside)]
    return problems + [f"the drawings' wheel holds {name}, which is not in git." for name in sorted(inside - tracked)]


def tracked_below(folder: str) -> set[str]:
    """What git has below a folder of src/, as a wheel names it."""
    return {path.removeprefix("src/") for path in git("ls-tree", "-r", "--name-only", "HEAD", folder).splitlines()}


def use_problems(wheel: Path, drawings: Path, scratch: Path, version: str) -> list[str]:
    """What a user of the wheel would meet: it is installed where nothing else is, and asked about a picture."""
    python = environment(scratch / "use")
    command = python.parent / "diptych"
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
    run(*pip, wheel)
    run(python, "-m", "pip", "check")
    problems = []
    if "classify" not in run(command, "--help", cwd=scratch):
        problems.append("`diptych --help` does not list its commands.")
    if run(command, "--version", cwd=scratch).strip() != version:
        problems.append(f"`diptych --version` must say {version}.")
    load = "import diptych; diptych.load(); print(diptych.__file__)"
    assert Path(run(python, "-c", load, cwd=scratch).strip()).is_relative_to(scratch), "that of the wheel, no other"
    labels = [word for label in LABELS for word in ("--labels", label)]
    answer = json.loads(run(command, "classify", ROOT / PICTURE, *labels, "--json", cwd=scratch))["images"]
    if answer[0]["labels"][0]["label"] != LABELS[0]:
        problems.append(f"`diptych classify {PICTURE}` must find {LABELS[0]!r}. Got {answer}.")
    run(*pip, drawings)
    model = ("--model", "diptych-pictogram-small")
    answer = json.loads(run(command, "classify", ROOT / PICTURE, *labels, *model, "--json", cwd=scratch))["images"]
    if answer[0]["labels"][0]["label"] != LABELS[0]:
        problems.append(f"diptych-pictogram-small must find {LABELS[0]!r} in {PICTURE}. Got {answer}.")
    return problems


def environment(folder: Path) -> Path:
    """A new virtual environment's Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def git(*words: str) -> str:
    return run("git", *words)


def run(*words: str | Path, cwd: Path = ROOT, text: bool = True):
    """Standard output of a command that must succeed. It sees no package but those of its environment."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=text, check=True, timeout=SECONDS).stdout


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        sys.exit(f"{error.stdout}{error.stderr}\nnot ready: `{command}` failed, with the words above.")
