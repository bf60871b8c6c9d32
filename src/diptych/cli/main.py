"""The app `diptych`: which commands there are, and how each ends.

A command's file is imported when the command is asked for, torch only when it runs. Whatever a user can cause and cure
ends in one line on standard error and exit code 2.
"""

import atexit
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, UnknownOptionError, UnusedCliTokensError

from diptych.cli.console import at_volume, complain, refuse
from diptych.config import unknown_name
from diptych.errors import ConfigError, DiptychError, missing_extra
from diptych.outside import import_module
from diptych.version import __version__

# Arguments of Python in the library's sentences: NAME=, NAME='value', NAME=True.
_OF_MODELS = (
    "activation", "heads", "tokenizer", "mean", "std", "resize", "interpolation", "end_token", "state_dict",
)  # fmt: skip
_ARGUMENT = re.compile(rf"\b({'|'.join(_OF_MODELS)}|truncate)=(?:True|'([^']*)'|(\d+)|(?![^\s,.;:)]))")
# The extra that brings torch and what else a command needs; "torch" alone for the others.
_EXTRAS = dict.fromkeys(("demo", "plan", "sweep", "train"), "train") | {"audit": "eval", "evaluate": "eval"}
_LIGHT = "classify, embed, filter, index, mcp, search and serve work without it."
_QUIET, _NO_PROGRESS = "--quiet", "--no-progress"  # of all commands
_BROKEN_PIPE, _USER_ERROR, _INTERRUPTED = 1, 2, 130  # 1 as rich has it; 130 is 128 + SIGINT

app = App(
    name="diptych",
    help="""Pictures and words, meeting in one space: train, use and measure CLIP models.

    diptych classify photo.jpg --labels "a cat" --labels "a dog"

    diptych COMMAND --help tells what a command takes. All take --quiet (no notes and no progress on standard error)
    and --no-progress (no bars).""",
    version=__version__,
    help_format="markdown",
    default_parameter=Parameter(negative=()),  # no --no-json, no --empty-labels
    suppress_keyboard_interrupt=False,  # so that Ctrl-C reaches `main`
)
app.command("diptych.cli.audit:audit", name="audit")
app.command("diptych.cli.caption:caption")
app.command("diptych.cli.classify:classify")
app.command("diptych.cli.curate:curate", name="curate")
app.command("diptych.cli.demo:demo")
app.command("diptych.cli.doctor:doctor")
app.command("diptych.cli.embed:embed")
app.command("diptych.cli.evaluate:evaluate", name="evaluate")
app.command("diptych.cli.export:export")
app.command("diptych.cli.filter:filter_", name="filter")
app.command("diptych.cli.index:index", name="index")
app.command("diptych.cli.make_data:make_data", name="make-data")
app.command("diptych.cli.mcp:mcp")
app.command("diptych.cli.models:models", name="models")
app.command("diptych.cli.plan:plan")
app.command("diptych.cli.search:search")
app.command("diptych.cli.segment:segment")
app.command("diptych.cli.serve:serve")
app.command("diptych.cli.sweep:sweep")
app.command("diptych.cli.train:train")
app.command("diptych.cli.watch:watch")
app.command("diptych.cli.where:where")


@app.command(name="--install-completion")
def _install_completion(*, shell: Literal["bash", "zsh", "fish"] | None = None) -> None:
    """Let the shell complete commands and options: write its script, and name that in the shell's start file.

    Parameters
    ----------
    shell
        By default the one that called.
    """
    from cyclopts.completion.detect import ShellDetectionError

    try:
        script = app.install_completion(shell=shell)
    except ShellDetectionError:
        raise ConfigError("the shell did not tell what it is. Add --shell bash, --shell zsh or --shell fish.") from None
    print(f"{script} completes diptych in shells that are started from now on")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `diptych`; those of the process when not given.

    Returns:
        The exit code: 0, 1 when nobody reads the output, 2 for an error that the user can cure, 130 after Ctrl-C.
    """
    words, flags = _without_flags(sys.argv[1:] if argv is None else argv)
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what Pillow thinks of odd files; faults are said by us
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    aloud = _Aloud(words)
    logging.getLogger("diptych").addHandler(aloud)
    try:
        with at_volume(quiet=_QUIET in flags, progress=_NO_PROGRESS not in flags):
            code = _run(words)
            sys.stdout.flush()
    except BrokenPipeError:
        code = _BROKEN_PIPE
    except KeyboardInterrupt:  # while what was printed still waits for its reader
        code = _INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        refuse(f"{where}{error.strerror or error}.")
        code = _USER_ERROR
    finally:
        logging.getLogger("diptych").removeHandler(aloud)
    _settle_output()
    return code


def run() -> NoReturn:
    """The process `diptych`, to its end."""
    code = main()
    if "daft" in sys.modules:  # its threads outlive the interpreter, and may abort the process then
        atexit._run_exitfuncs()
        _settle_output()
        os._exit(code)
    sys.exit(code)


def _without_flags(words: Sequence[str]) -> tuple[list[str], set[str]]:
    """What the command is given, and which of the flags stood anywhere before a "--"."""
    end = words.index("--") if "--" in words else len(words)
    flags = {word for word in words[:end] if word in (_QUIET, _NO_PROGRESS)}
    return [*(word for word in words[:end] if word not in flags), *words[end:]], flags


def _run(words: list[str]) -> int:
    if not words or words[0].startswith("-"):
        app.resolved_commands()  # the list of commands shows the first line of each
    try:
        _import_allowed()
        app(_dash_is_no_option(words), exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        refuse(_sentence(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        refuse(str(missing_extra(f"diptych {words[0]}", _EXTRAS.get(words[0], "torch"), _LIGHT)))
    except DiptychError as error:
        refuse(_as_options(str(error), words))
    except KeyboardInterrupt:
        refuse("stopped.")
        return _INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        refuse("the memory is full. Try a smaller --batch-size or a smaller model.")
    else:
        return 0
    return _USER_ERROR


def _import_allowed() -> None:
    """Import what the user allows by DIPTYCH_ALLOW_CODE, so that models may name towers of it."""
    for module in filter(None, re.split(r"[,\s]+", os.environ.get("DIPTYCH_ALLOW_CODE", ""))):
        import_module(module, "DIPTYCH_ALLOW_CODE")


class _Aloud(logging.Handler):
    """What the library warns of, such as things that it assumes, as messages."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(logging.WARNING)
        self._words = words

    def emit(self, record: logging.LogRecord) -> None:
        complain(_as_options(record.getMessage(), self._words))


def _as_options(message: str, words: Sequence[str]) -> str:
    """A sentence of the library with arguments as the options that they are here.

    Of a command that has no such option, it says which has.
    """
    asked = [match[1] for match in _ARGUMENT.finditer(message)]
    if not asked:
        return message
    options = _options_of(words)
    for name in asked:
        if f"--{name}" not in options:
            message = re.sub(rf", or ask for truncation \({name}=True\)", "", message)
    shown = _ARGUMENT.sub(_as_option, message)
    missing = [f"--{name}".replace("_", "-") for name in asked if name in _OF_MODELS]
    if missing and missing[0] not in options:
        shown += (
            f" Here is no {missing[0]}: `diptych models convert FILE OUT --format bundle` has it, and OUT is then the "
            "--model."
        )
    return shown


def _as_option(match: re.Match[str]) -> str:
    name = f"--{match[1]}".replace("_", "-")
    value = match[2] or match[3]
    return f"{name} {value}" if value else name


def _options_of(words: Sequence[str]) -> set[str]:
    _, apps, _ = app.parse_commands(list(words))
    return {name for argument in apps[-1].assemble_argument_collection() for name in argument.names}


def _dash_is_no_option(words: list[str]) -> list[str]:
    """A lone "-" means standard input, but to cyclopts only behind "--"."""
    cut = words.index("--") if "--" in words else len(words)
    options, names = words[:cut], words[cut + 1 :]
    if "-" not in options:
        return words
    return [*(word for word in options if word != "-"), "--", *("-" for word in options if word == "-"), *names]


def _sentence(error: CycloptsError) -> str:
    chain = " ".join(("diptych", *(error.command_chain or ())))
    if isinstance(error, UnknownOptionError):
        options = {name for argument in error.argument_collection for name in argument.names if name.startswith("--")}
        return unknown_name((error.token.keyword or error.token.value).split("=")[0], "", options, "an option")
    if isinstance(error, UnknownCommandError):
        assert error.unused_tokens
        assert error.app
        word = error.unused_tokens[0]
        is_option = word.startswith("-")
        names = [name for name in error.app if name.startswith("-") == is_option]
        return unknown_name(word, "", names, f"an option of {chain}" if is_option else f"a command of {chain}")
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or ())} is more than {chain} takes. See {chain} --help."
    return f"{error} See {chain} --help."


def _is_out_of_memory(error: BaseException) -> bool:
    # torch raises its own RuntimeErrors, and only that of a GPU has a class.
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in ("allocate memory", "out of memory"))


def _settle_output() -> None:
    """What cannot be written would stay in the buffer, and Python complain of it once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
