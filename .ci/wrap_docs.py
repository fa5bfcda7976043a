"""Break the lines of the documentation at 110 columns: paragraphs and lists, not tables, code and headings.

`make format` calls it; without arguments it takes all Markdown files of the repository that are not generated.
"""

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

WIDTH = 110
HELD = "\0"
"""Stands for a space at which no line ends: inside code."""
GENERATED = {"docs/API.md", "docs/CONFIG.md"}
AS_IT_IS = re.compile(r"\s*(#|\||>|!\[|\[[^\]]+\]:|<|---|\*\*\*)|\s*$| {4,}")
"""Headings, tables, quotations, pictures, definitions of links, HTML, rules, empty lines, indented code."""
ITEM = re.compile(r"(\s*)([-*+]|\d+\.)\s+")


def wrapped(text: str) -> str:
    """A Markdown text with the lines of its paragraphs filled anew."""
    lines: list[str] = []
    for block in blocks(text.splitlines()):
        item = ITEM.match(block[0])
        code = block[0].lstrip().startswith("```")
        stays = len(block) == 1 and (len(block[0]) <= WIDTH or AS_IT_IS.match(block[0]))
        lines += block if code or stays else fill(block, item)
    return "\n".join(lines) + "\n"


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """What is filled together: a code block, an item of a list, a paragraph, or a line that stays."""
    block: list[str] = []
    code = False
    for line in lines:
        fence = line.lstrip().startswith("```")
        if code:
            block.append(line)
        elif fence or ITEM.match(line) or (AS_IT_IS.match(line) and not continues(block, line)):
            if block:
                yield block
            block = [line]
        else:
            if block and AS_IT_IS.match(block[0]) and not ITEM.match(block[0]):
                yield block
                block = []
            block.append(line)
        code ^= fence
    if block:
        yield block


def continues(block: list[str], line: str) -> bool:
    """Whether an indented line belongs to the item of a list before it."""
    return bool(block and line.strip() and ITEM.match(block[0]) and line.startswith("  "))


def fill(block: list[str], item: re.Match[str] | None) -> list[str]:
    """The lines of a paragraph or an item."""
    first = item[0] if item else re.match(r"\s*", block[0])[0]  # type: ignore[index]
    text = " ".join(line.strip() for line in [block[0][len(first) :], *block[1:]])
    text = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", HELD), text)
    filled = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(HELD, " ") for line in mend(filled, len(first))]


def mend(lines: list[str], indent: int) -> list[str]:
    """Let no line begin with what Markdown would take for a list or a heading."""
    for index in range(1, len(lines)):
        begin = lines[index].lstrip()
        if ITEM.match(begin) or begin.startswith(("#", ">")):
            word, _, rest = lines[index].strip().partition(" ")
            lines[index - 1] += f" {word}"
            lines[index] = " " * indent + rest
    return lines


def main(paths: list[str]) -> None:
    """Rewrite the files that change."""
    listed = subprocess.run(["git", "ls-files", "*.md"], capture_output=True, text=True, check=True).stdout.split()
    for path in map(Path, paths or sorted({*listed} - GENERATED)):
        before = path.read_text(encoding="utf-8")
        after = wrapped(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"wrapped {path}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
