"""What an install weighs: site-packages of a new environment with diptych and one extra, byte by byte.

    python benchmarks/install_size.py [--extras torch serve]

Builds the wheel of the working tree, and for each extra makes an environment with what pip gives under constraints.txt;
pip and setuptools, which an environment brings itself, are left out, compiled files are counted. Needs the package
registry. An extra that pip cannot give is left out. Writes results/install_size.json.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

import history

ROOT = Path(__file__).parent.parent
_LEFT_OUT = re.compile(r"^(pip|setuptools|pkg_resources|_distutils_hack|distutils-precedence)\b")
_NOT_FOR_USERS = ("dev", "docs", "pictograms")


def megabytes(folder: Path) -> float:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def site_packages(environment: Path) -> Path:
    return next(environment.glob("lib/python*/site-packages"))


def install(scratch: Path, wheel: Path, extra: str) -> dict[str, float | str]:
    environment = scratch / (extra or "none")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    asked = f"diptych[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
    pip = [str(environment / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), asked], check=True, stderr=subprocess.DEVNULL)
    parts = [part for part in site_packages(environment).iterdir() if not _LEFT_OUT.match(part.name)]
    sizes = {part.name: megabytes(part) if part.is_dir() else part.stat().st_size / 1e6 for part in parts}
    return {"extra": extra or "(none)", "MB": round(sum(sizes.values()), 1), "diptych MB": round(sizes["diptych"], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    parser.add_argument("--extras", nargs="*", default=[name for name in known if name not in _NOT_FOR_USERS])
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(scratch), str(ROOT)]
        subprocess.run(build, check=True)
        wheel = next(scratch.glob("diptych-*.whl"))
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(zipfile.ZipFile(wheel).namelist()):,} files")
        for extra in ("", *options.extras):
            try:
                rows.append(install(scratch, wheel, extra))
            except subprocess.CalledProcessError as error:
                print(f"{extra}: left out, pip ended with {error.returncode}", flush=True)
                continue
            print(rows[-1], flush=True)
        result = {"wheel MB": round(wheel.stat().st_size / 1e6, 1), "rows": rows}
    history.write(history.RESULTS / "install_size.json", result, keys=("extra",))


if __name__ == "__main__":
    main()
