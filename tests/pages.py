"""The code blocks of the site's pages, and the command lines in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import typer
from typer.core import TyperGroup

from expunge.cli import app

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
FENCED = re.compile(
    r"(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
TARGET = re.compile(r"^(\w+):", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: a comment before it may name the file that it is, or why it is not run."""

    page: str
    language: str
    text: str
    file: str | None
    not_run: str | None

    def commands(self) -> list[list[str]]:
        """Return the words of each line, without comments; a line that ends with a backslash goes on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: str) -> list[Block]:
    """Return all blocks of a page, in their order."""
    found = []
    for each in FENCED.finditer(PAGES[page].read_text(encoding="utf-8")):
        kind, _, words = (each["mark"] or "").partition(": ")
        told = {"file": "file", "not run here": "not_run"}.get(kind)
        marks = {"file": None, "not_run": None} | ({told: words} if told else {})
        found.append(Block(page, each["language"], each["text"], **marks))
    return found


def spans(page: str) -> list[str]:
    """Return what stands between single backticks."""
    return SPAN.findall(FENCED.sub("", PAGES[page].read_text(encoding="utf-8")))


def check(words: list[str]) -> None:
    """Raise if a command line cannot be what it says: an unknown program, command, option, target or file."""
    words = words[next(n for n, word in enumerate(words) if not ASSIGNMENT.fullmatch(word)) :]
    program, *rest = words
    if "expunge" in words:  # by itself, or started by torchrun or srun
        parse(words[words.index("expunge") + 1 :])
    elif program == "make":
        assert set(rest) <= set(TARGET.findall((ROOT / "Makefile").read_text())), words
    elif program == "python":
        assert (ROOT / next(word for word in rest if word.endswith(".py")).split("::")[0]).is_file(), words
    else:
        assert words in ([".", ".venv/bin/activate"],), words


def parse(words: list[str]) -> tuple[str, frozenset[str]]:
    """Return the name of the command that the words after ``expunge`` call, and its options; run nothing."""
    context = typer.main.get_command(app).make_context("expunge", list(words))
    while isinstance(group := context.command, TyperGroup):
        name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context.command.name or "", frozenset(word for one in context.command.params for word in one.opts)


def options(name: str | None = None) -> set[str]:
    """Return the options of a command of expunge; of all commands together without a name."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    named = [group.commands[name]] if name else [group, *group.commands.values()]
    return {word for one in named for each in one.params for word in each.opts}
