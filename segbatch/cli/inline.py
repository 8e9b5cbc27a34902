"""Pictures in a terminal."""

from __future__ import annotations

import base64
import io
import os
import sys
import termios
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_COLUMNS = 120


def can_draw(console: Console) -> bool:
    """Whether the console is a terminal with colors."""
    return console.is_terminal and console.color_system is not None and not console.no_color


def print_picture(console: Console, picture: Image) -> None:
    """Print a picture, as wide as the terminal and at most 120 columns.

    As pixels in terminals with iTerm2's protocol, Kitty's or sixel, else as half blocks. In tmux always as these,
    because tmux drops the protocols unless it is configured to pass them.
    """
    width = min(console.width, _MAX_COLUMNS)
    if "TMUX" not in os.environ:
        if "iTerm" in os.environ.get("TERM_PROGRAM", "") + os.environ.get("LC_TERMINAL", ""):
            data = io.BytesIO()
            picture.save(data, "PNG")
            encoded = base64.b64encode(data.getvalue()).decode()
            console.file.write(f"\x1b]1337;File=inline=1;width={width}:{encoded}\a\n")
            return
        if sys.stdin is not None and sys.stdin.isatty() and _print_pixels(console, picture, width):
            return
    for line in _half_blocks(picture, width):
        console.print(line, soft_wrap=True)


def _print_pixels(console: Console, picture: Image, width: int) -> bool:
    """Print a picture by Kitty's protocol or sixel; return False if the terminal has neither."""
    try:
        # Late: the import asks the terminal what it can do.
        from textual_image import renderable

        if renderable.Image not in (renderable.TGPImage, renderable.SixelImage):
            return False
        console.print(renderable.Image(picture, width=width))
    except (ZeroDivisionError, termios.error):  # a terminal without a size in pixels, or that cannot be asked
        return False
    return True


def _half_blocks(picture: Image, width: int) -> list[Text]:
    """Return a picture as lines of text, two pixels above each other in a character."""
    rows = max(1, round(picture.height * width / picture.width / 2))
    small = picture.convert("RGB").resize((width, 2 * rows)).load()
    assert small is not None

    def style(x: int, row: int) -> str:
        upper, lower = small[x, 2 * row], small[x, 2 * row + 1]
        return f"rgb{upper} on rgb{lower}".replace(" (", "(").replace(", ", ",")

    return [Text.assemble(*(("▀", style(x, row)) for x in range(width))) for row in range(rows)]
