"""The command line: options to keyword arguments, results to the terminal, errors to exit codes.

Exit codes: 0 done, 1 failed, 2 used wrongly. Results go to stdout, all else to stderr.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from verger.cli.classify import classify, export, inspect, predict, serve, similar
from verger.cli.emr import emr
from verger.cli.options import (
    FEATURES,
    MODEL,
    PHOTOS,
    REDUCE,
    SPARK,
    config_option,
    config_options,
    dry_run_option,
    json_option,
    resolve_config,
)
from verger.cli.terminal import download_bar, keep_page_up, print_json, print_rows, tell, watch_for
from verger.errors import UsageError, VergerError, WeightsError
from verger.schema import INSPECTED

if TYPE_CHECKING:
    from verger.config import Config


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
def demo(directory: Path, classes: int, per_class: int, seed: int, as_json: bool, **_: Any) -> None:
    """Render photos and run everything on them."""
    from verger.cli.demo import run_demo

    config = resolve_config()
    summary = run_demo(
        directory, config, classes=classes, per_class=per_class, seed=seed, watch=watch_for(config)
    )
    _print_summary(summary, as_json)
    keep_page_up(config)


@app.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--classes", default=30, show_default=True, help="Classes to draw.")
@click.option("--per-class", default=10, show_default=True, help="Photos of each class.")
@click.option("--seed", default=0, show_default=True, help="Seed of the draw.")
@json_option("Print what was copied as JSON.")
def sample(
    source: str, target: str, classes: int, per_class: int, seed: int, as_json: bool
) -> None:
    """Copy a class-balanced sample of a class-per-folder data set."""
    from verger.source.sample import sample_dataset

    found = sample_dataset(source, target, classes=classes, per_class=per_class, seed=seed)
    if as_json:
        print_json({"folder": str(found.folder), "classes": found.classes})
        return
    n_photos = sum(found.classes.values())
    click.echo(f"{n_photos} photos of {len(found.classes)} classes copied to {found.folder}")


def _launch_ahead(config: Config) -> None:
    from verger.engine.session import launch_ahead

    launch_ahead(config)


def _pipeline(config: Config, *, dry_run: bool = False) -> ModuleType:
    """Load the stages, while Java starts if it will be needed."""
    if not dry_run:
        _launch_ahead(config)
    from verger.job import pipeline

    return pipeline


@app.command()
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@config_options(*PHOTOS, *MODEL, *FEATURES, *REDUCE, "partitions", "overwrite", *SPARK)
@dry_run_option
def run(source: str, out: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Featurize, reduce, validate and report: the whole job."""
    config = resolve_config()
    pipeline = _pipeline(config, dry_run=dry_run)
    if dry_run:
        _print_plan(pipeline.describe_plan(source, out, config), as_json)
        return
    _print_summary(pipeline.run(source, out, config, watch=watch_for(config)), as_json)
    keep_page_up(config)


@app.command()
@click.argument("source", metavar="SRC")
@click.argument("out", metavar="OUT")
@config_options(*PHOTOS, *MODEL, *FEATURES, "partitions", "overwrite", *SPARK)
@dry_run_option
def featurize(source: str, out: str, as_json: bool, dry_run: bool, **_: Any) -> None:
    """Write features/ and rejected/."""
    config = resolve_config()
    pipeline = _pipeline(config, dry_run=dry_run)
    if dry_run:
        _print_plan(pipeline.describe_plan(source, out, config, reduce=False), as_json)
        return
    _print_summary(pipeline.run_featurize(source, out, config, watch=watch_for(config)), as_json)
    keep_page_up(config)


@app.command()
@click.argument("out", metavar="OUT")
@config_options(*REDUCE, "overwrite", *SPARK)
def reduce(out: str, as_json: bool, **_: Any) -> None:
    """Write pca/, models/pca/, explained_variance.csv and scree.png."""
    config = resolve_config()
    _print_summary(_pipeline(config).run_reduce(out, config, watch=watch_for(config)), as_json)
    keep_page_up(config)


@app.command()
@click.argument("out", metavar="OUT")
@config_options(*SPARK)
def validate(out: str, as_json: bool, **_: Any) -> None:
    """Re-derive every count of a result; exit 1 and a reason when something does not hold."""
    config = resolve_config()
    found = _pipeline(config).run_validate(out, config, watch=watch_for(config))
    if as_json:
        labels = {"null" if k is None else k: n for k, n in found.labels.items()}
        checks = [check.as_dict() for check in found.checks]
        print_json({"holds": found.holds, "checks": checks, "labels": labels})
    else:
        for check in found.checks:
            click.echo(f"{'ok    ' if check.holds else 'FAILED'}  {check.name}: {check.detail}")
        _print_labels(found.labels)
    keep_page_up(config)
    found.raise_if_broken()


@app.command()
@click.argument("out", metavar="OUT")
@config_options(*SPARK)
def report(out: str, as_json: bool, **_: Any) -> None:
    """Write report.html and report.json."""
    config = resolve_config()
    _print_summary(_pipeline(config).run_report(out, config, watch=watch_for(config)), as_json)
    keep_page_up(config)


@app.command()
@click.argument("out", metavar="OUT")
@click.option(
    "--table",
    type=click.Choice(["features", "pca", "rejected", *INSPECTED]),
    default="features",
    show_default=True,
    help="Which table.",
)
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="How many rows to print.",
)
@json_option()
def show(out: str, table: str, rows: int, as_json: bool) -> None:
    """Show a table's schema, counts, first rows and the dimension of its vectors."""
    from verger.cli.show import view_table
    from verger.result.output import Output

    view = view_table(Output.at(out), table, n_rows=rows)
    if as_json:
        print_json(
            {
                "table": view.name,
                "columns": view.columns,
                "n_rows": view.n_rows,
                "n_files": view.n_files,
                "dimensions": view.dimensions,
                "labels": {"null" if k is None else k: n for k, n in view.labels.items()},
                "rows": view.rows,
            }
        )
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


for command in (classify, predict, similar, inspect, export, serve, emr):
    app.add_command(command)


@app.group()
def models() -> None:
    """Show what models there are, where their weights are, and fetch them."""


@models.command("list")
@json_option()
def models_list(as_json: bool) -> None:
    """List the built-in models and where their weights are."""
    rows = [_model_row(name) for name in _cards()]
    if as_json:
        print_json(rows)
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
    from verger.features.model import find_card
    from verger.features.model.checksum import sha256_of

    source = find_card(name).weights
    with download_bar() as on_progress:
        path = source.fetch(on_progress)
    click.echo(f"{path}\nsha256 {sha256_of(path)}")


@models.command("show")
@click.argument("name")
@config_option("weights")
@json_option()
def models_show(name: str, weights: str | None, as_json: bool) -> None:
    """Show a model's layers and parameters, its weights and its contract."""
    from verger.features.model import load_model

    with download_bar() as on_progress:
        model = load_model(name, weights=weights, on_progress=on_progress)
    total = sum(layer.n_params for layer in model.layers)
    if as_json:
        layers = [vars(layer) for layer in model.layers]
        print_json(
            {
                "contract": model.contract.as_dict(),
                "contract_hash": model.contract.hash,
                "weights": model.weights_path,
                "published": model.published,
                "license": model.license,
                "layers": layers,
                "n_params": total,
            }
        )
        return
    _print_layers(model.layers)
    click.echo(f"Total parameters: {total:,}, none of them trained by Verger")
    click.echo(f"Weights:  {model.weights_path}\nsha256:   {model.contract.weights_sha256}")
    verdict = {
        True: "compute what the published ImageNet weights compute",
        False: "are NOT the published ImageNet weights",
        None: "of your own",
    }
    click.echo(f"          {verdict[model.published]}")
    click.echo(f"Contract: {model.contract.hash}\nLicence:  {model.license}")


@app.command()
@json_option()
def doctor(as_json: bool) -> None:
    """Look at Python, Java, Spark, memory and weights: what works, and what to do if not."""
    from verger.cli.doctor import examine

    with watch_for()("doctor", None, None):
        findings = examine()
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    for finding in findings if not as_json else ():
        mark = "ok    " if finding.works else "note  " if finding.optional else "FAILED"
        click.echo(f"{mark}  {finding.name}: {finding.detail}")
        if finding.advice:
            click.echo(f"        -> {finding.advice}")
    click.get_current_context().exit(0 if all(f.works or f.optional for f in findings) else 1)


# Printing


def _print_summary(record: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(record)
        return
    from verger.result.output import REPORT, Output

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
    print_rows([*lines, where])
    width = min(shutil.get_terminal_size().columns, 100)  # a longer line is hard to read
    for notice in _warnings(record):
        tell(click.wrap_text(f"note: {notice}", width, "", "      "))


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
    from verger.features.model import CARDS

    return CARDS


def _model_row(name: str) -> dict[str, Any]:
    from verger.features.model.checksum import sha256_of

    card = _cards()[name]
    problem = None
    try:
        path = card.weights.find()
    except WeightsError as err:
        path, problem = None, str(err)
    return {
        "name": name,
        "title": card.title,
        "license": card.license,
        "origin": card.origin,
        "input_size": card.input_size,
        "n_features": card.n_features,
        "weights": str(path) if path else None,
        "sha256": sha256_of(path) if path else card.weights.sha256,
        "url": card.weights.address(),
        "problem": problem,
    }


def _print_plan(plan: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plan)
        return
    click.echo("Configuration:")
    for name, value in plan["config"].items():
        click.echo(f"  {name} = {json.dumps(value, ensure_ascii=False)}")
    click.echo("Would:")
    for step in plan["steps"]:
        click.echo(f"  {step}")


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
    tell(f"verger: {' '.join(line.strip() for line in message.splitlines())}")
    sys.exit(code)
