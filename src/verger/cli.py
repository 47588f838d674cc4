"""The command line: options to keyword arguments, results to the terminal, errors to exit codes.

Exit codes: 0 done, 1 failed, 2 used wrongly. Results go to stdout, all else to stderr.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from verger.cli_emr import emr
from verger.config import Config
from verger.errors import (
    ConfigError,
    EnvironmentNotReadyError,
    UsageError,
    VergerError,
    WeightsError,
)
from verger.options import (
    FEATURES,
    FIELDS,
    MODEL,
    PHOTOS,
    REDUCE,
    SPARK,
    config_options,
    resolve_config,
)  # fmt: skip

if TYPE_CHECKING:
    from rich.console import Console

    from verger.classify.training import Recipe
    from verger.export import Exported
    from verger.pipeline import Watch
    from verger.predict import Prediction
    from verger.storage import Unread


_dry_run = click.option(
    "--dry-run", is_flag=True, help="Print the configuration and what would be done; do nothing."
)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _watch(config: Config | None = None) -> Watch:
    """Return what shows progress and, with ``--ui``, tells the address once Spark has started."""
    from verger.progress import terminal_watch

    draw = terminal_watch(_console(stderr=True))
    if config is None or not config.ui:
        return draw

    @contextmanager
    def watch(name: str, total: int | None, spark: Any) -> Iterator[Any]:
        with draw(name, total, spark) as on_progress:
            yield on_progress
        if name == "start Spark":
            click.echo(f"Spark's page: {_spark_page()}", err=True)

    return watch


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="verger")
def app() -> None:
    """Turn folders and buckets of photos into feature tables that people can trust."""


@app.command()
@click.argument(
    "directory", metavar="[DIR]", default="verger-demo", type=click.Path(path_type=Path)
)
@click.option("--classes", default=30, show_default=True, help="Classes to render.")
@click.option("--per-class", default=10, show_default=True, help="Photos of each class.")
@click.option("--seed", default=0, show_default=True, help="Seed of the renderer.")
@config_options(*MODEL, *REDUCE, *SPARK, "overwrite")
def demo(
    directory: Path, classes: int, per_class: int, seed: int, as_json: bool,
    **_: Any,
) -> None:  # fmt: skip
    """Render photos and run everything on them."""
    from verger.demo import run_demo

    config = resolve_config()
    summary = run_demo(
        directory, config, classes=classes, per_class=per_class, seed=seed, watch=_watch(config)
    )
    _print_summary(summary, as_json)
    _keep_page_up(config)


@app.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--classes", default=30, show_default=True, help="Classes to draw.")
@click.option("--per-class", default=10, show_default=True, help="Photos of each class.")
@click.option("--seed", default=0, show_default=True, help="Seed of the draw.")
@click.option("--json", "as_json", is_flag=True, help="Print what was copied as JSON.")
def sample(
    source: str, target: str, classes: int, per_class: int, seed: int, as_json: bool
) -> None:
    """Copy a class-balanced sample of a class-per-folder data set."""
    from verger.sample import sample_dataset

    found = sample_dataset(source, target, classes=classes, per_class=per_class, seed=seed)
    if as_json:
        _print_json({"folder": str(found.folder), "classes": found.classes})
        return
    n_photos = sum(found.classes.values())
    click.echo(f"{n_photos} photos of {len(found.classes)} classes copied to {found.folder}")


@app.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@config_options("glob", "recursive", "label_from", "max_error_rate", "partitions", "overwrite",
          "master", "conf")  # fmt: skip
@_dry_run
def pack(source: str, target: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Write photos into few large Parquet files, which run and featurize read like a folder."""
    from verger import packing

    config = resolve_config()
    if dry_run:
        _print_plan(packing.describe_pack(source, target, config), as_json)
        return
    manifest = packing.pack_photos(source, target, config, watch=_watch(config))
    if as_json:
        _print_json(manifest)
        return
    for name, text in _pack_lines(manifest):
        click.echo(f"{name:<9} {text}")
    click.echo(f"{'pack':<9} {target}")


@app.command()
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@config_options(*PHOTOS, *MODEL, *FEATURES, *REDUCE, "partitions", "overwrite", *SPARK)
@_dry_run
def run(source: str, out: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Featurize, reduce, validate and report: the whole job."""
    from verger import pipeline

    config = resolve_config()
    if dry_run:
        _print_plan(pipeline.describe_plan(source, out, config), as_json)
        return
    _print_summary(pipeline.run(source, out, config, watch=_watch(config)), as_json)
    _keep_page_up(config)


@app.command()
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@config_options(*PHOTOS, *MODEL, *FEATURES, "partitions", "overwrite", *SPARK)
@_dry_run
def featurize(source: str, out: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Write features/ and rejected/."""
    from verger import pipeline

    config = resolve_config()
    if dry_run:
        _print_plan(pipeline.describe_plan(source, out, config, reduce=False), as_json)
        return
    _print_summary(pipeline.run_featurize(source, out, config, watch=_watch(config)), as_json)
    _keep_page_up(config)


@app.command()
@click.argument("out", metavar="OUT")
@config_options(*REDUCE, "overwrite", *SPARK)
def reduce(out: str, as_json: bool, **_: Any) -> None:
    """Write pca/, models/pca/, explained_variance.csv and scree.png."""
    from verger import pipeline

    config = resolve_config()
    _print_summary(pipeline.run_reduce(out, config, watch=_watch(config)), as_json)
    _keep_page_up(config)


@app.command()
@click.argument("out", metavar="OUT")
@config_options(*SPARK)
def validate(out: str, as_json: bool, **_: Any) -> None:
    """Re-derive every count of a result; exit 1 and a reason when something does not hold."""
    from verger import pipeline

    config = resolve_config()
    found = pipeline.run_validate(out, config, watch=_watch(config))
    if as_json:
        labels = {"null" if k is None else k: n for k, n in found.labels.items()}
        checks = [check.as_dict() for check in found.checks]
        _print_json({"holds": found.holds, "checks": checks, "labels": labels})
    else:
        for check in found.checks:
            click.echo(f"{'ok    ' if check.holds else 'FAILED'}  {check.name}: {check.detail}")
        _print_labels(found.labels)
    _keep_page_up(config)
    found.raise_if_broken()


@app.command()
@click.argument("out", metavar="OUT")
@config_options(*SPARK)
def report(out: str, as_json: bool, **_: Any) -> None:
    """Write report.html and report.json."""
    from verger import pipeline

    config = resolve_config()
    _print_summary(pipeline.run_report(out, config, watch=_watch(config)), as_json)
    _keep_page_up(config)


@app.command()
@click.argument("out", metavar="OUT")
@click.option("--table", type=click.Choice(["features", "pca", "rejected"]), default="features",
              show_default=True, help="Which table.")  # fmt: skip
@click.option("--rows", type=click.IntRange(min=0), default=5, show_default=True,
              help="How many rows to print.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(out: str, table: str, rows: int, as_json: bool) -> None:
    """Show a table's schema, counts, first rows and the dimension of its vectors."""
    from verger.output import Output
    from verger.show import view_table

    view = view_table(Output.at(out), table, n_rows=rows)
    if as_json:
        _print_json({
            "table": view.name, "columns": view.columns, "n_rows": view.n_rows,
            "n_files": view.n_files, "dimensions": view.dimensions,
            "labels": {"null" if k is None else k: n for k, n in view.labels.items()},
            "rows": view.rows,
        })  # fmt: skip
        return
    files = "1 file" if view.n_files == 1 else f"{view.n_files} files"
    click.echo(f"{view.name}: {view.n_rows:,} rows in {files}")
    for name, kind in view.columns.items():
        click.echo(f"  {name}: {kind}")
    if view.dimensions:
        click.echo(f"dimension of the vectors: {', '.join(map(str, view.dimensions))}")
    _print_labels(view.labels)
    for row in view.rows:
        click.echo("\n" + "\n".join(f"  {key}: {_short(value)}" for key, value in row.items()))


_weights = click.option("--weights", metavar="PATH", help=FIELDS["weights"].metadata["help"])
_extractor = click.option(
    "--extractor", "model", metavar="FILE.onnx",
    help="Where the file of your own model is now, if OUT was made with one.",
)  # fmt: skip


@app.group()
def classify() -> None:
    """Train a classifier on a result, and find out what it is worth."""


def _recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a Recipe."""
    options = [
        click.option("--method", type=click.Choice(["logistic", "knn", "centroid"]),
                     default="logistic", show_default=True, help="Logistic regression, the "
                     "votes of the nearest photos, or the nearest class mean."),
        click.option("--on", type=click.Choice(["features", "pca"]), default="features",
                     show_default=True, help="What it looks at."),
        click.option("--n-neighbors", default=5, show_default=True, help="Votes of knn."),
        click.option("--split", type=click.Choice(["random", "group", "contiguous"]),
                     help="How photos are held out.  [default: the strictest that paths allow]"),
        click.option("--groups", metavar="REGEX", help="Photos whose paths have the same text in "
                     "its groups stay together."),
        click.option("--frames", metavar="REGEX", help="Where a path says film and frame: with "
                     "(?P<film>...) and (?P<frame>...)."),
        click.option("--test-share", default=0.25, show_default=True,
                     help="Share that is held out."),
        click.option("--seed", default=0, show_default=True, help="Seed of all that is drawn."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


_RECIPE = (
    "method", "on", "n_neighbors", "split", "groups", "frames", "test_share", "seed",
)  # fmt: skip


def _recipe() -> Recipe:
    from verger.classify.training import Recipe

    given = click.get_current_context().params
    return Recipe(**{name: given[name] for name in _RECIPE if given[name] is not None})


@classify.command("train")
@click.argument("out", metavar="OUT")
@_recipe_options
@config_options(*SPARK)
def classify_train(out: str, as_json: bool, **_: Any) -> None:
    """Write models/classifier.npz and models/classifier/."""
    from verger.classify import train_classifier

    config = resolve_config()
    found = train_classifier(out, config, _recipe(), watch=_watch(config))
    if as_json:
        _print_json(found)
    else:
        _print_rows(_training_lines(found))
    _keep_page_up(config)


@classify.command("evaluate")
@click.argument("out", metavar="OUT")
@click.option("--against", metavar="OUT2", help="Test the trained classifier on another result, "
              "instead of a split of this one.")  # fmt: skip
@_recipe_options
@config_options(*SPARK)
def classify_evaluate(out: str, against: str | None, as_json: bool, **_: Any) -> None:
    """Train on one part and test on another, or test on other photos; the report shows it."""
    from verger import classify as stage

    config, watch = resolve_config(), _watch(resolve_config())
    if against is None:
        found = stage.evaluate_split(out, config, _recipe(), watch=watch)
    else:
        _refuse_with_against()
        found = stage.evaluate_against(out, against, config, watch=watch)
    if as_json:
        _print_json(found)
    else:
        _print_rows(_evaluation_lines(found))
    _keep_page_up(config)


def _refuse_with_against() -> None:
    """Refuse options that would do nothing: the classifier is trained already."""
    context = click.get_current_context()
    given = [n for n in _RECIPE if context.get_parameter_source(n) == ParameterSource.COMMANDLINE]
    if given:
        flag = given[0].replace("_", "-")
        raise ConfigError(f"--{flag} goes with a split; --against tests what verger classify train "
                          "has trained")  # fmt: skip


@app.command()
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
@click.option("--model", "out", metavar="OUT", required=True, help="Result with a classifier.")
@_weights
@_extractor
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects as JSON.")
def predict(
    photos: tuple[str, ...], out: str, weights: str | None, model: str | None, as_json: bool
) -> None:
    """Say what is on photos: files, folders, or - for standard input. No Spark, no Java."""
    from verger.predict import Predictor, list_named

    paths = list_named(photos)
    with _download_bar() as on_progress:
        predictor = Predictor.load(out, weights, model, on_progress=on_progress)
    failed, rows = False, []
    for found in predictor.iter_predictions(map(_read_photo, paths), paths):
        failed |= found.error is not None
        if as_json:
            rows.append(found.as_dict())
        else:
            click.echo("\n".join(_prediction_lines(found)))
    if as_json:
        _print_json(rows)
    click.get_current_context().exit(1 if failed else 0)


@app.command()
@click.argument("photo", metavar="PHOTO")
@click.argument("out", metavar="OUT")
@click.option("-k", type=int, default=10, show_default=True, help="How many to find.")
@_weights
@_extractor
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects as JSON.")
def similar(photo: str, out: str, as_json: bool, **options: Any) -> None:
    """Find the photos of a result that are most like a file, or - for standard input."""
    from verger.predict import list_named
    from verger.similar import find_similar

    if Path(photo).is_dir():
        raise ConfigError(f"PHOTO={photo}: is a folder; name one photo")
    (path,) = list_named([photo])
    with _download_bar() as on_progress:
        found = find_similar(_read_photo(path), out, on_progress=on_progress, **options)
    if as_json:
        _print_json([match.as_dict() for match in found])
        return
    for match in found:
        click.echo(f"{match.similarity:.4f}  {match.path}  ({match.label or 'no label'})")


@app.command()
@click.argument("out", metavar="OUT")
@click.argument("path", metavar="FILE.onnx", type=click.Path(path_type=Path))
@click.option("--precision", type=click.Choice(["fp16", "int8"]),
              help="A smaller file that is less exact; what it costs is printed.")  # fmt: skip
@_weights
@_extractor
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export(out: str, path: Path, as_json: bool, **options: Any) -> None:
    """Write one ONNX file for apps: pixels in, probabilities and features out."""
    from verger.export import export_app

    with _watch()("export", None, None) as on_progress:
        written = export_app(out, path, on_progress=on_progress, **options)
    if as_json:
        _print_json(written.as_dict())
        return
    for name, text in _export_lines(written):
        click.echo(f"{name:<9} {text}")


@app.command()
@click.argument("out", metavar="OUT")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="Port to listen on; 0 takes a free one.")  # fmt: skip
@click.option("--facts", metavar="FILE.toml", type=click.Path(path_type=Path),
              help="A line about each label, shown beside it.")  # fmt: skip
@click.option("--in-browser", is_flag=True,
              help="The page does the work, by the exported file: no photo is sent.")  # fmt: skip
@click.option("--ort-web", metavar="DIR", type=click.Path(path_type=Path),
              help="Folder dist of npm's onnxruntime-web, for --in-browser.")  # fmt: skip
@_weights
@_extractor
def serve(out: str, host: str, **options: Any) -> None:
    """Serve a page, and a REST interface, to try a classifier with; photos are never stored."""
    try:
        from verger import serve as web
    except ModuleNotFoundError as err:
        raise EnvironmentNotReadyError(
            f"{err.name} is not installed, which verger serve needs: pip install 'verger[serve]'"
        ) from err
    if not web.is_loopback(host):
        click.echo(f"--host {host}: everybody who reaches this machine can ask, without password "
                   "or encryption", err=True)  # fmt: skip
    with suppress(KeyboardInterrupt), _download_bar() as on_progress:
        web.serve(out, host=host, on_progress=on_progress, on_start=_tell_address, **options)


def _tell_address(address: str) -> None:
    click.echo(f"{address}  (Ctrl-C ends it)")


app.add_command(emr)


@app.group()
def models() -> None:
    """Show what models there are, where their weights are, and fetch them."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def models_list(as_json: bool) -> None:
    """List the built-in models and where their weights are."""
    rows = [_model_row(name) for name in _cards()]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        click.echo(f"{row['name']}\n  {row['title']}; {row['license']}; {row['origin']}")
        click.echo(
            f"  {row['input_size']}x{row['input_size']} photos to {row['n_features']} features"
        )
        missing = row["problem"] or f"not on this machine; verger models fetch {row['name']}"
        where = row["weights"] or missing
        click.echo(f"  weights: {where}")
        click.echo(f"  sha256:  {row['sha256'] or 'known once fetched'}\n")
    click.echo(
        "FILE.onnx\n  any ONNX model with one image input and one vector output, and FILE.toml"
    )


@models.command("fetch")
@click.argument("name")
def models_fetch(name: str) -> None:
    """Fetch the weights of a model into Verger's cache."""
    from verger.model import find_card
    from verger.model.weights import sha256_of

    source = find_card(name).weights
    with _download_bar() as on_progress:
        path = source.fetch(on_progress)
    click.echo(f"{path}\nsha256 {sha256_of(path)}")


@models.command("show")
@click.argument("name")
@click.option("--weights", metavar="PATH", help=FIELDS["weights"].metadata["help"])
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def models_show(name: str, weights: str | None, as_json: bool) -> None:
    """Show a model's layers and parameters, its weights and its contract."""
    from verger.model import load_model

    with _download_bar() as on_progress:
        model = load_model(name, weights=weights, on_progress=on_progress)
    total = sum(layer.n_params for layer in model.layers)
    if as_json:
        layers = [vars(layer) for layer in model.layers]
        _print_json({
            "contract": model.contract.as_dict(), "contract_hash": model.contract.hash,
            "weights": model.weights_path, "published": model.published, "license": model.license,
            "layers": layers, "n_params": total,
        })  # fmt: skip
        return
    _print_layers(model.layers)
    click.echo(f"Total parameters: {total:,}, none of them trained by Verger")
    click.echo(f"Weights:  {model.weights_path}\nsha256:   {model.contract.weights_sha256}")
    verdict = {True: "compute what the published ImageNet weights compute",
               False: "are NOT the published ImageNet weights", None: "of your own"}  # fmt: skip
    click.echo(f"          {verdict[model.published]}")
    click.echo(f"Contract: {model.contract.hash}\nLicence:  {model.license}")


@app.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor(as_json: bool) -> None:
    """Look at Python, Java, Spark, memory and weights: what works, and what to do if not."""
    from verger.doctor import examine

    with _watch()("doctor", None, None):
        findings = examine()
    if as_json:
        _print_json([finding.as_dict() for finding in findings])
    for finding in findings if not as_json else ():
        mark = "ok    " if finding.works else "note  " if finding.optional else "FAILED"
        click.echo(f"{mark}  {finding.name}: {finding.detail}")
        if finding.advice:
            click.echo(f"        -> {finding.advice}")
    click.get_current_context().exit(0 if all(f.works or f.optional for f in findings) else 1)


# Printing


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _print_summary(record: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(record)
        return
    from verger.output import REPORT, Output

    counts, model = record["counts"], record["model"]
    lines = [("photos", _ledger(counts))]
    if counts["computed"] != counts["listed"]:
        n_known = counts["listed"] - counts["computed"]
        lines.append(("", f"{n_known:,} were done before, {counts['computed']:,} now"))
    for reason, n in counts["reasons"].items():
        lines.append(("", f"{n:,} rejected: {reason}"))
    if counts["truncated"]:
        lines.append(("", f"{counts['truncated']:,} accepted though truncated, and marked"))
    if counts["gone"]:
        n = counts["gone"]
        rows = "1 row is of a photo" if n == 1 else f"{n:,} rows are of photos"
        lines.append(("", f"{rows} that disappeared; --prune drops them"))
    if counts["ignored"]:
        left_out = ", ".join(f"{n:,} {suffix}" for suffix, n in counts["ignored"].items())
        lines.append(("", f"left out by the glob: {left_out}"))
    contract = record["contract_hash"][:12]
    shape = f"{counts['featurized']:,} x {model['n_features']}"
    lines.append(("features", f"{shape} float32 by {model['name']}, contract {contract}"))
    if record.get("pca"):
        lines.append(("pca", _pca_line(record["pca"])))
    lines.append(("time", _time_line(record)))
    if record.get("spent"):
        lines.append(("workers", _spent_line(record["spent"])))
    if record.get("checks"):
        held = sum(check["holds"] for check in record["checks"])
        lines.append(("checks", f"{held} of {len(record['checks'])} hold"))
    output = Output(record["output"])
    page = output.folder.exists(REPORT)
    where = ("report", output.address(REPORT)) if page else ("result", output.root)
    for name, text in [*lines, where]:
        click.echo(f"{name:<9} {text}")
    for notice in _warnings(record):
        click.echo(click.wrap_text(f"note: {notice}", _width(), "", "      "), err=True)


def _pack_lines(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what a pack holds, in the words of a run."""
    counts, seconds = manifest["counts"], manifest["seconds"]
    n = f"{counts['listed']:,} listed = {counts['packed']:,} packed"
    lines = [("photos", f"{n} + {counts['unreadable']:,} unreadable")]
    lines += [("", f"{n:,} unreadable: {reason}") for reason, n in counts["reasons"].items()]
    if counts["ignored"]:
        left_out = ", ".join(f"{n:,} {suffix}" for suffix, n in counts["ignored"].items())
        lines.append(("", f"left out by the glob: {left_out}"))
    size = sum(part["size"] for part in manifest["files"])
    files = "1 file" if len(manifest["files"]) == 1 else f"{len(manifest['files']):,} files"
    lines.append(("size", f"{size / 1e6:,.1f} MB in {files}"))
    speed = counts["packed"] / max(seconds["pack"], 0.001)
    lines.append(("time", f"{sum(seconds.values()):.1f} s in all; pack {seconds['pack']:.1f} s, "
                          f"{speed:,.0f} images/s"))  # fmt: skip
    return lines


def _prediction_lines(found: Prediction) -> list[str]:
    if found.error is not None:
        return [f"{found.path}  error: {found.error} ({found.detail})"]
    lines = [f"{found.path}  {found.prediction or 'unknown'}"]
    lines += [f"  {score.probability:6.1%}  {score.label}" for score in found.top]
    return lines + [f"  near {near.path} ({near.label})" for near in found.nearest]


def _export_lines(written: Exported) -> list[tuple[str, str]]:
    check = written.check
    lines = [
        ("file", f"{written.path}, {written.size_bytes / 1e6:.1f} MB, {written.n_labels} labels"),
        ("check", f"{check.n_photos} photos: the same label for {check.agreement:.0%}, "
                  f"probabilities within {check.probability_difference:.1g}, "
                  f"features within {check.features_difference:.1g} of the largest"),
        ("", f"with large JPEGs decoded whole: the same label for {check.agreement_on_files:.0%}"),
    ]  # fmt: skip
    if check.accuracy is not None:
        lines.append(("accuracy", f"{check.accuracy:.1%} of the labels of these photos, "
                                  f"{check.accuracy_of_run:.1%} by the run itself"))  # fmt: skip
    return lines


def _training_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what was trained."""
    recipe = found["recipe"]
    photos = f"{found['n_photos']:,} photos of {found['n_labels']} classes"
    if found["n_unlabelled"]:
        photos += f"; {found['n_unlabelled']:,} without a label left out"
    chosen = f", penalty {found['reg_param']:g}" if "reg_param" in found else ""
    return [
        ("photos", photos),
        ("trained", f"{recipe['method']} on {recipe['on']}{chosen}"),
        ("unknown", f"below {found['threshold']:.3f}"),
        ("time", f"{sum(found['seconds'].values()):.1f} s in all; "
                 f"train {found['seconds']['train']:.1f} s"),
    ]  # fmt: skip


def _evaluation_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what an evaluation found: the split asked for first, then the one beside."""
    lines = []
    for one in filter(None, (found["evaluation"], found["beside"])):
        scores, at = one["scores"], one["threshold"]
        lines.append((one["split"], f"{scores['accuracy']:.1%} of {scores['n']:,} photos right, "
                      f"{scores['top5']:.1%} among the first five; log loss "
                      f"{scores['log_loss']:.3f}"))  # fmt: skip
        text = f"below {at['threshold']:.3f}; {at['coverage']:.1%} get a name"
        text += f", {at['error']:.1%} of those a wrong one" if at["error"] is not None else ""
        if at["others"] is not None:
            text += f"; of other things {at['others']:.1%}"
        lines.append(("  unknown", text))
        leak = one.get("leakage", {})
        if "neighbouring_frame" in leak:
            lines.append(("  leakage", f"{leak['neighbouring_frame']:.1%} of the test photos are "
                          "nearest to a neighbouring frame"))  # fmt: skip
    return lines


def _print_rows(rows: list[tuple[str, str]]) -> None:
    for name, text in rows:
        click.echo(f"{name:<11} {text}")


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 100)


def _ledger(counts: Mapping[str, Any]) -> str:
    gone = f" + {counts['gone']:,} disappeared" if counts["gone"] else ""
    return (
        f"{counts['listed']:,} listed{gone} = {counts['featurized']:,} with features "
        f"+ {counts['rejected']:,} rejected"
    )


def _pca_line(pca: Mapping[str, Any]) -> str:
    at = ", ".join(f"{float(share):.0%} at {k}" for share, k in pca["k"].items())
    return f"k = {pca['n_components']} keeps {pca['kept']:.1%} of the variance ({at})"


def _time_line(record: Mapping[str, Any]) -> str:
    seconds = record["seconds"]
    text = f"{sum(seconds.values()):.1f} s in all"
    if seconds.get("featurize"):
        speed = record["counts"]["computed"] / seconds["featurize"]
        digits = 0 if speed >= 10 else 1
        text += f"; featurize {seconds['featurize']:.1f} s, {speed:.{digits}f} images/s"
    return text


def _spent_line(spent: Mapping[str, Any]) -> str:
    total = {part: seconds for part, seconds in spent["total"].items() if part != "photos"}
    whole = sum(total.values()) or 1
    parts = ", ".join(f"{part} {seconds / whole:.0%}" for part, seconds in total.items())
    return f"{parts}; {len(spent['workers'])} workers"


def _warnings(record: Mapping[str, Any]) -> list[str]:
    notices = list(record.get("notices", ()))
    if record["model"]["published"] is False:
        notices.append("these weights do not compute what the published ImageNet weights compute")
    return notices


def _print_labels(labels: Mapping[str | None, int], most: int = 10) -> None:
    if not labels:
        return
    shown = sorted(labels.items(), key=lambda item: (-item[1], str(item[0])))
    text = ", ".join(f"{label} {n:,}" for label, n in shown[:most])
    more = f", and {len(shown) - most} more" if len(shown) > most else ""
    click.echo(f"labels: {len(shown)} ({text}{more})")


def _print_layers(layers: tuple[Any, ...]) -> None:
    click.echo(f"{'layer':<34} {'type':<24} {'output':<18} {'parameters':>12}")
    for layer in layers:
        shape = "x".join(map(str, layer.shape))
        click.echo(f"{layer.name[:34]:<34} {layer.kind:<24} {shape:<18} {layer.n_params:>12,}")


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    head = ", ".join(f"{number:.4f}" for number in value[:6])
    return f"[{head}{', ...' if len(value) > 6 else ''}]"


def _cards() -> Mapping[str, Any]:
    from verger.model import CARDS

    return CARDS


def _model_row(name: str) -> dict[str, Any]:
    from verger.model.weights import sha256_of

    card = _cards()[name]
    problem = None
    try:
        path = card.weights.find()
    except WeightsError as err:
        path, problem = None, str(err)
    return {
        "name": name, "title": card.title, "license": card.license, "origin": card.origin,
        "input_size": card.input_size, "n_features": card.n_features,
        "weights": str(path) if path else None,
        "sha256": sha256_of(path) if path else card.weights.sha256,
        "url": card.weights.address(), "problem": problem,
    }  # fmt: skip


def _print_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        _print_json(plan)
        return
    click.echo("Configuration:")
    for name, value in plan["config"].items():
        click.echo(f"  {name} = {json.dumps(value, ensure_ascii=False)}")
    click.echo("Would:")
    for step in plan["steps"]:
        click.echo(f"  {step}")


def _read_photo(name: str) -> bytes | Unread:
    from verger.predict import STDIN
    from verger.storage import read_photo

    return sys.stdin.buffer.read() if name == STDIN else read_photo(name)


@contextmanager
def _download_bar() -> Iterator[Callable[[int, int], None]]:
    from verger.progress import download_bar

    with download_bar(_console(stderr=True)) as on_progress:
        yield on_progress


def _spark_page() -> str:
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    return str(session.sparkContext.uiWebUrl) if session else "none"


def _keep_page_up(config: Config) -> None:
    """With ``--ui``, keep Spark's page up until Ctrl-C."""
    if config.ui:
        click.echo(f"Spark's page stays up at {_spark_page()}; Ctrl-C ends it", err=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


# Errors


def main() -> None:
    """Run the command line; the entry point of ``verger``."""
    _hush_helpers()
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as err:
        err.show()
        sys.exit(err.exit_code)
    except click.Abort:
        _fail("interrupted; what is committed is kept, and the same command goes on", 130)
    except UsageError as err:
        _fail(str(err), 2)
    except VergerError as err:
        _fail(str(err), 1)
    except Exception as err:
        if _java_is_gone(err):
            _fail(_JAVA_GONE, 1)
        if not type(err).__module__.startswith(("pyspark", "py4j")):
            raise
        _fail(_spark_message(err), 1)


_JAVA_GONE = (
    "Spark's Java has ended: killed, or out of memory; what is committed is kept, and the same "
    "command goes on"
)


def _java_is_gone(err: BaseException | None) -> bool:
    """Whether an error is about the process that Spark runs in, which answers no more."""
    while err is not None:
        frames = traceback.extract_tb(err.__traceback__)
        if (isinstance(err, ConnectionError) or type(err).__name__ == "Py4JNetworkError") and any(
            "py4j" in frame.filename for frame in frames
        ):
            return True
        err = err.__context__  # pyspark turns some into errors of other kinds
    return False


def _hush_helpers() -> None:
    """Leave it to the error that ends the command to say that Java is gone.

    Threads and finalisers of pyspark's and ours meet the same end, and Python would print their
    tracebacks.
    """
    thread, unraisable = threading.excepthook, sys.unraisablehook

    def of_thread(args: threading.ExceptHookArgs) -> None:
        if not _java_is_gone(args.exc_value):
            thread(args)

    def of_finaliser(args: Any) -> None:
        if not _java_is_gone(args.exc_value):
            unraisable(args)

    threading.excepthook, sys.unraisablehook = of_thread, of_finaliser


def _spark_message(err: Exception) -> str:
    """Return what a failed Spark job is about: our own error's text where one is inside."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("verger.errors.")]
    if ours:
        return ours[-1].split(": ", 1)[-1]
    causes = [line for line in lines if line.startswith("Caused by:")]
    first = causes[-1] if causes else lines[0] if lines else type(err).__name__
    return f"Spark failed: {first}; VERGER_SPARK_LOG=warn shows its log"


def _fail(message: str, code: int) -> None:
    click.echo(f"verger: {' '.join(line.strip() for line in message.splitlines())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
