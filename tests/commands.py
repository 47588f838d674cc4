"""Write docs/commands.md, the reference of the command line: what every ``--help`` prints.

A test compares the page with the commands; ``make commands`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from verger.cli import app

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
HEAD = """# Commands

What `verger COMMAND --help` prints, for every command.
This page is generated: `make commands` writes it.

Results go to standard output, everything else to standard error.
Exit codes: 0 done, 1 failed, 2 used wrongly, 130 ended by Ctrl-C, 143 ended by SIGTERM.
"""


def list_commands(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, str]]:
    """Yield the name and the help of a command and of all commands below it."""
    width = {"max_content_width": 80, "terminal_width": 80}
    # With the program's own settings: click makes the option --help of a command once.
    settings = command.context_settings | width
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            yield from list_commands(command.commands[child], child, context)


def write_page() -> str:
    """Return the page, a section for each command."""
    sections = (
        f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in list_commands(app, "verger")
    )
    return HEAD + "".join(sections)


if __name__ == "__main__":
    PAGE.write_text(write_page(), "utf-8")
