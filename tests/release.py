"""Put the project's address into a copy of the repository that becomes a release.

Nothing in the repository names an address. ``make dist VERGER_URL=https://...`` calls this with a
copy: the package's page gets its links, README's relative links become links to the release's tag,
and CITATION.cff names the repository.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


def link_readme(text: str, url: str, version: str) -> str:
    """Make relative links of Markdown absolute; pictures need the raw file."""

    def absolute(match: re.Match[str]) -> str:
        kind = "raw" if match[1] else "blob"
        return f"{match[1]}[{match[2]}]({url}/{kind}/v{version}/{match[3]})"

    return LINK.sub(absolute, text)


def fill_in(folder: Path, url: str) -> None:
    """Write the address into the files of a copy of the repository."""
    project = folder / "pyproject.toml"
    text = project.read_text("utf-8")
    version = tomllib.loads(text)["project"]["version"]
    changes = f"{url}/blob/v{version}/CHANGELOG.md"
    links = f'Source = "{url}"\nIssues = "{url}/issues"\nChangelog = "{changes}"\n'
    project.write_text(f"{text}\n[project.urls]\n{links}", "utf-8")
    readme = folder / "README.md"
    readme.write_text(link_readme(readme.read_text("utf-8"), url, version), "utf-8")
    with (folder / "CITATION.cff").open("a", encoding="utf-8") as file:
        file.write(f'repository-code: "{url}"\n')


if __name__ == "__main__":
    fill_in(Path(sys.argv[1]), sys.argv[2].rstrip("/"))
