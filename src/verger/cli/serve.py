"""The command ``serve``."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from verger.cli.options import extractor_option, name_option, weights_option
from verger.cli.terminal import download_bar, say, tell, tell_source
from verger.errors import missing_extra
from verger.language import LANGUAGES

facts_option = click.option(
    "--facts",
    metavar="FILE.toml",
    type=click.Path(path_type=Path),
    help="A line about each label, shown beside it.",
)
ort_web_option = click.option(
    "--ort-web",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder dist of npm's onnxruntime-web, for a page that does the work.",
)


def look_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a page presents itself."""
    for option in (
        click.option("--lang", type=click.Choice(LANGUAGES), help="Instead of the browser's own."),
        click.option(
            "--logo",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="A picture beside the title, and the icon of the installed page.",
        ),
        click.option("--title", help="Heading of the page."),
    ):
        function = option(function)
    return function


@click.command()
@click.argument("out", metavar="OUT")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@facts_option
@click.option(
    "--in-browser",
    is_flag=True,
    help="The page does the work, by the exported file: no photo is sent.",
)
@ort_web_option
@click.option(
    "--behind-proxy",
    is_flag=True,
    help="Believe X-Forwarded-For and -Proto: all requests come from a web server in front.",
)
@look_options
@click.option(
    "--feedback",
    metavar="FILE.csv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Ask whether the answer was right, and write it there; a photo only if that is ticked.",
)
@name_option
@weights_option
@extractor_option
def serve(
    out: str, host: str, title: str | None, logo: Path | None, lang: str | None, **options: Any
) -> None:
    """Serve a page, and a REST interface, to try a classifier with.

    Photos are stored only where --feedback asks for it.
    """
    # Requests are answered side by side: more threads in a product only wait for one another.
    # numpy reads this when it is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from verger import serve as web
        from verger.serve.look import Look
    except ModuleNotFoundError as err:
        raise missing_extra(err.name, "verger serve", "serve") from err
    look = Look.of(title=title, logo=logo, lang=lang)
    if not web.is_loopback(host):
        tell(
            f"--host {host}: everybody who reaches this machine can ask, without password or "
            "encryption"
        )
    tell_source(out)
    with suppress(KeyboardInterrupt), download_bar() as on_progress:
        web.serve(
            out, host=host, look=look, on_progress=on_progress, on_start=_tell_address, **options
        )


def _tell_address(address: str) -> None:
    say(f"{address}  (Ctrl-C ends it)")
