"""The command ``export``: a classifier as one file for apps, or as a static site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verger.cli.options import extractor_option, json_option, name_option, weights_option
from verger.cli.serve import facts_option, look_options, ort_web_option
from verger.cli.terminal import print_json, print_rows, tell_source, watch_for
from verger.errors import missing_extra

if TYPE_CHECKING:
    from verger.classify.export.app import Exported
    from verger.classify.export.check import ExportCheck
    from verger.serve.site import Site


@click.command()
@click.argument("out", metavar="OUT")
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--site",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write the page that does the work itself into a folder for any web server.",
)
@click.option(
    "--to",
    "kind",
    type=click.Choice(["app", "atlas"]),
    default="app",
    show_default=True,
    help="app: FILE.onnx; atlas: FILE.parquet for embedding-atlas.",
)
@ort_web_option
@look_options
@facts_option
@click.option(
    "--precision",
    type=click.Choice(["fp16", "int8"]),
    help="A smaller file that is less exact; what it costs is printed.",
)
@name_option
@weights_option
@extractor_option
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@json_option("Print what was written as JSON.")
def export(
    out: str, path: Path | None, site: Path | None, kind: str, as_json: bool, **options: Any
) -> None:
    """Write one ONNX file for apps (pixels in, probabilities and features out), a site, a table."""
    if kind == "atlas":
        if site is not None:
            raise click.UsageError("--to atlas needs no --site")
        _export_atlas(out, _file_of(path, ".parquet"), as_json, options)
        return
    if (path is None) == (site is None):
        raise click.UsageError("name either FILE.onnx or --site DIR")
    page = {name: options.pop(name) for name in ("ort_web", "title", "logo", "lang", "facts")}
    if site is not None:
        _export_site(out, site, page, as_json, options)
        return
    if given := _first_given(page):
        raise click.UsageError(f"{given} needs --site DIR")
    path = _file_of(path, ".onnx")
    from verger.classify.export.app import export_app

    tell_source(out)
    with watch_for()("export", None) as progress:
        written = export_app(out, path, on_progress=progress.on_bytes, **options)
    if as_json:
        print_json(written.as_dict())
        return
    print_rows(_app_lines(written))


def _file_of(path: Path | None, suffix: str) -> Path:
    """Return FILE, whose suffix must say what is written: apps and embedding-atlas go by it."""
    if path is None or path.suffix.lower() != suffix:
        named = "" if path is None else f", not {path}"
        raise click.UsageError(f"name FILE{suffix}{named}; --to atlas writes .parquet, app .onnx")
    return path


def _first_given(values: Mapping[str, Any]) -> str | None:
    """Return the first option that has a value, as the user writes it."""
    options = click.get_current_context().command.params
    given = (each.opts[0] for each in options if values.get(each.name or ""))
    return next(given, None)


def _export_atlas(out: str, path: Path, as_json: bool, options: dict[str, Any]) -> None:
    overwrite = options.pop("overwrite")
    if given := _first_given(options):
        raise click.UsageError(f"--to atlas needs no {given}")
    from verger.similar.atlas import export_atlas

    tell_source(out)
    n = export_atlas(out, path, overwrite=overwrite, watch=watch_for())
    if as_json:
        print_json({"path": str(path), "photos": n})
        return
    print_rows(
        [
            ("file", f"{path}, {n:,} photos with their neighbours and pictures"),
            ("open it", f"embedding-atlas {path} {_ATLAS}"),
        ]
    )


_ATLAS = "--x projection_x --y projection_y --neighbors neighbors"


def _export_site(
    out: str, site: Path, page: dict[str, Any], as_json: bool, options: dict[str, Any]
) -> None:
    ort_web, facts = page.pop("ort_web"), page.pop("facts")
    if ort_web is None:
        raise click.UsageError("--site needs --ort-web DIR: npm install onnxruntime-web")
    try:
        from verger.serve.facts import load_facts
        from verger.serve.look import Look
        from verger.serve.site import export_site
    except ModuleNotFoundError as err:
        raise missing_extra(err.name, "verger export --site", "serve") from err
    look, told = Look.of(**page), load_facts(facts) if facts else {}
    tell_source(out)
    with watch_for()("export", None) as progress:
        options["on_progress"] = progress.on_bytes
        written = export_site(out, site, ort_web, look=look, facts=told, **options)
    if as_json:
        print_json(written)
        return
    print_rows(_site_lines(written))


def _site_lines(written: Site) -> list[tuple[str, str]]:
    size = f"{written.n_files:,} files, {written.size_bytes / 1e6:.1f} MB"
    return [
        ("site", f"{written.path}, {size}, {written.n_labels} labels"),
        *_check_lines(written.check),
        ("try it", f"python -m http.server --directory {written.path}"),
    ]


def _app_lines(written: Exported) -> list[tuple[str, str]]:
    size = f"{written.size_bytes / 1e6:.1f} MB"
    return [
        ("file", f"{written.path}, {size}, {written.n_labels} labels"),
        *_check_lines(written.check),
    ]


def _check_lines(check: ExportCheck) -> list[tuple[str, str]]:
    lines = [
        (
            "check",
            f"{check.n_photos} photos: the same label for {check.agreement:.0%}, "
            f"probabilities within {check.probability_difference:.1g}, "
            f"features within {check.features_difference:.1g} of the largest",
        ),
        ("", f"with large JPEGs decoded whole: the same label for {check.agreement_on_files:.0%}"),
    ]
    if check.accuracy is not None:
        lines.append(
            (
                "accuracy",
                f"{check.accuracy:.1%} of the labels of these photos, "
                f"{check.accuracy_of_run:.1%} by the run itself",
            )
        )
    return lines
