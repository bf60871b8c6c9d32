"""Small pictures in a terminal that shows them: kitty's protocol and iTerm2's, told apart by the environment.

Sources: sw.kovidgoyal.net/kitty/graphics-protocol, iterm2.com/documentation-images.html.
"""

import base64
import io
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

_ROWS = 8  # lines of text that a picture is high
_CHUNK = 4096  # bytes of base64 in one of kitty's escapes


def protocol_of(environment: Mapping[str, str], *, is_terminal: bool) -> Literal["kitty", "iterm"] | None:
    """What a terminal understands, by what it says of itself; within tmux and screen nothing gets through."""
    if not is_terminal or environment.get("TMUX") or environment.get("TERM", "").startswith("screen"):
        return None
    program = environment.get("TERM_PROGRAM", "")
    if environment.get("KITTY_WINDOW_ID") or environment.get("TERM") == "xterm-kitty" or program == "ghostty":
        return "kitty"
    return "iterm" if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2" else None


def print_thumbnails(jpegs: Sequence[bytes]) -> bool:
    """Print pictures side by side, as far as the terminal is able; False when it is not."""
    protocol = protocol_of(os.environ, is_terminal=sys.stdout.isatty())
    if protocol is None:
        return False
    for jpeg in jpegs:
        sys.stdout.write(kitty(jpeg) if protocol == "kitty" else iterm(jpeg))
    sys.stdout.write("\n")
    sys.stdout.flush()
    return True


def kitty(jpeg: bytes) -> str:
    """The escapes that show a picture in kitty, which takes PNG alone."""
    from PIL import Image

    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    return "".join(
        f"\x1b_G{f'a=T,f=100,r={_ROWS},q=2,' if i == 0 else ''}m={int(i < len(chunks) - 1)};{chunk}\x1b\\"
        for i, chunk in enumerate(chunks)
    )


def iterm(jpeg: bytes) -> str:
    """The escape that shows a picture in iTerm2."""
    data = base64.b64encode(jpeg).decode()
    return f"\x1b]1337;File=inline=1;size={len(jpeg)};height={_ROWS}:{data}\x07"
