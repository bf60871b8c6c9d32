"""`python -m diptych` is `diptych`."""

from diptych.cli.main import run

if __name__ == "__main__":
    run()
