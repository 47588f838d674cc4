"""The commands around a classifier; see :mod:`verger.cli` for how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from verger.cli.options import SPARK, config_option, config_options, json_option, resolve_config
from verger.cli.terminal import download_bar, keep_page_up, print_json, print_rows, tell, watch_for
from verger.errors import ConfigError, EnvironmentNotReadyError

if TYPE_CHECKING:
    from verger.classify.export.app import Exported
    from verger.classify.predict import Prediction
    from verger.classify.recipe import Recipe
    from verger.files.reading import Unread

_weights = config_option("weights")
_extractor = click.option(
    "--extractor",
    "model",
    metavar="FILE.onnx",
    help="Where the file of your own model is now, if OUT was made with one.",
)
_frames = click.option(
    "--frames",
    metavar="REGEX",
    help="Where a path says film and frame: with (?P<film>...) and (?P<frame>...).",
)
_approximate = click.option(
    "--approximate",
    is_flag=True,
    help="Look them up in an index of OUT, for large tables; needs 'verger[index]'.",
)


@click.group()
def classify() -> None:
    """Train a classifier on a result, and find out what it is worth."""


def _recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a Recipe."""
    options = [
        click.option(
            "--method",
            type=click.Choice(["logistic", "knn", "centroid"]),
            default="logistic",
            show_default=True,
            help="Logistic regression, the votes of the nearest photos, or the nearest class mean.",
        ),
        click.option(
            "--on",
            type=click.Choice(["features", "pca"]),
            default="features",
            show_default=True,
            help="What it looks at.",
        ),
        click.option("--n-neighbors", default=5, show_default=True, help="Votes of knn."),
        click.option(
            "--split",
            type=click.Choice(["random", "group", "contiguous"]),
            help="How photos are held out.  [default: the strictest that paths allow]",
        ),
        click.option(
            "--groups",
            metavar="REGEX",
            help="Photos whose paths have the same text in its groups stay together.",
        ),
        _frames,
        click.option(
            "--test-share", default=0.25, show_default=True, help="Share that is held out."
        ),
        click.option("--seed", default=0, show_default=True, help="Seed of all that is drawn."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


_RECIPE = ("method", "on", "n_neighbors", "split", "groups", "frames", "test_share", "seed")


def _recipe() -> Recipe:
    from verger.classify.recipe import Recipe

    given = click.get_current_context().params
    return Recipe(**{name: given[name] for name in _RECIPE if given[name] is not None})


@classify.command("train")
@click.argument("out", metavar="OUT")
@_recipe_options
@config_options(*SPARK)
def classify_train(out: str, as_json: bool, **_: Any) -> None:
    """Write models/classifier.npz and models/classifier/."""
    from verger.classify.stage import train_classifier

    config = resolve_config()
    found = train_classifier(out, config, _recipe(), watch=watch_for(config))
    if as_json:
        print_json(found)
    else:
        print_rows(_training_lines(found), names=11)
    keep_page_up(config)


@classify.command("evaluate")
@click.argument("out", metavar="OUT")
@click.option(
    "--against",
    metavar="OUT2",
    help="Test the trained classifier on another result, instead of a split of this one.",
)
@_recipe_options
@config_options(*SPARK)
def classify_evaluate(out: str, against: str | None, as_json: bool, **_: Any) -> None:
    """Train on one part and test on another, or test on other photos; the report shows it."""
    from verger.classify import evaluation

    config = resolve_config()
    watch = watch_for(config)
    if against is None:
        found = evaluation.evaluate_split(out, config, _recipe(), watch=watch)
    else:
        _refuse_with_against()
        found = evaluation.evaluate_against(out, against, config, watch=watch)
    if as_json:
        print_json(found)
    else:
        print_rows(_evaluation_lines(found), names=11)
    keep_page_up(config)


def _refuse_with_against() -> None:
    """Refuse options that would do nothing: the classifier is trained already."""
    context = click.get_current_context()
    given = [n for n in _RECIPE if context.get_parameter_source(n) == ParameterSource.COMMANDLINE]
    if given:
        flag = given[0].replace("_", "-")
        raise ConfigError(
            f"--{flag} goes with a split; --against tests what verger classify train has trained"
        )


@click.command()
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
@click.option("--model", "out", metavar="OUT", required=True, help="Result with a classifier.")
@_weights
@_extractor
@json_option("Print a list of objects as JSON.")
def predict(
    photos: tuple[str, ...], out: str, weights: str | None, model: str | None, as_json: bool
) -> None:
    """Say what is on photos: files, folders, or - for standard input. No Spark, no Java."""
    from verger.classify.predict import Predictor, list_named

    paths = list_named(photos)
    with download_bar() as on_progress:
        predictor = Predictor.load(out, weights, model, on_progress=on_progress)
    failed, rows = False, []
    for found in predictor.iter_predictions(map(_read_photo, paths), paths):
        failed |= found.error is not None
        if as_json:
            rows.append(found.as_dict())
        else:
            click.echo("\n".join(_prediction_lines(found)))
    if as_json:
        print_json(rows)
    click.get_current_context().exit(1 if failed else 0)


@click.command()
@click.argument("photo", metavar="PHOTO")
@click.argument("out", metavar="OUT")
@click.option("-k", type=int, default=10, show_default=True, help="How many to find.")
@_approximate
@_weights
@_extractor
@json_option("Print a list of objects as JSON.")
def similar(photo: str, out: str, as_json: bool, **options: Any) -> None:
    """Find the photos of a result that are most like a file, or - for standard input."""
    from verger.classify.predict import list_named
    from verger.similar.photo import find_similar

    if Path(photo).is_dir():
        raise ConfigError(f"PHOTO={photo}: is a folder; name one photo")
    (path,) = list_named([photo])
    if options["approximate"]:
        _tell_of_index(out)
    with download_bar() as on_progress:
        found = find_similar(_read_photo(path), out, on_progress=on_progress, **options)
    if as_json:
        print_json([match.as_dict() for match in found])
        return
    for match in found:
        click.echo(f"{match.similarity:.4f}  {match.path}  ({match.label or 'no label'})")


def _tell_of_index(out: str) -> None:
    """Say what the index is worth, or that one has to be made."""
    from verger.result.output import Output
    from verger.similar.index import current_index, require_faiss

    require_faiss()
    index = current_index(Output.at(out))
    if index is None:
        tell("no index of these features yet: it is made first")
    else:
        tell(f"an approximate index, which finds {index.recall:.1%} of the nearest {index.k}")


@click.command()
@click.argument("out", metavar="OUT")
@click.option("-k", type=int, default=10, show_default=True, help="Neighbours of each photo.")
@click.option(
    "--near",
    type=float,
    default=0.98,
    show_default=True,
    help="Cosine from which on two photos are nearly the same picture.",
)
@_frames
@_approximate
@config_options(*SPARK)
def inspect(
    out: str, k: int, near: float, frames: str | None, approximate: bool, as_json: bool, **_: Any
) -> None:
    """Find copies, near copies, doubtful labels and outliers; the report shows them."""
    from verger.engine.session import launch_ahead

    config = resolve_config()
    launch_ahead(config)
    from verger.similar.inspection.stage import Criteria, inspect_photos

    criteria = Criteria(k=k, near=near, frames=frames, approximate=approximate)
    found = inspect_photos(out, config, criteria, watch=watch_for(config))
    if as_json:
        print_json(found)
    else:
        print_rows(_inspection_lines(found), names=11)
    keep_page_up(config)


@click.command()
@click.argument("out", metavar="OUT")
@click.argument("path", metavar="FILE.onnx", type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(["fp16", "int8"]),
    help="A smaller file that is less exact; what it costs is printed.",
)
@_weights
@_extractor
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@json_option("Print what was written as JSON.")
def export(out: str, path: Path, as_json: bool, **options: Any) -> None:
    """Write one ONNX file for apps: pixels in, probabilities and features out."""
    from verger.classify.export.app import export_app

    with watch_for()("export", None, None) as on_progress:
        written = export_app(out, path, on_progress=on_progress, **options)
    if as_json:
        print_json(written.as_dict())
        return
    print_rows(_export_lines(written))


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
@click.option(
    "--facts",
    metavar="FILE.toml",
    type=click.Path(path_type=Path),
    help="A line about each label, shown beside it.",
)
@click.option(
    "--in-browser",
    is_flag=True,
    help="The page does the work, by the exported file: no photo is sent.",
)
@click.option(
    "--ort-web",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder dist of npm's onnxruntime-web, for --in-browser.",
)
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
        tell(
            f"--host {host}: everybody who reaches this machine can ask, without password or "
            "encryption"
        )
    with suppress(KeyboardInterrupt), download_bar() as on_progress:
        web.serve(out, host=host, on_progress=on_progress, on_start=_tell_address, **options)


def _tell_address(address: str) -> None:
    click.echo(f"{address}  (Ctrl-C ends it)")


def _read_photo(name: str) -> bytes | Unread:
    from verger.classify.predict import STDIN
    from verger.files.reading import read_photo

    return sys.stdin.buffer.read() if name == STDIN else read_photo(name)


# Printing


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
        (
            "time",
            f"{sum(found['seconds'].values()):.1f} s in all; "
            f"train {found['seconds']['train']:.1f} s",
        ),
    ]


def _evaluation_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what an evaluation found: the split asked for first, then the one beside."""
    lines = []
    for one in filter(None, (found["evaluation"], found["beside"])):
        scores, at = one["scores"], one["threshold"]
        lines.append(
            (
                one["split"],
                f"{scores['accuracy']:.1%} of {scores['n']:,} photos right, "
                f"{scores['top5']:.1%} among the first five; log loss "
                f"{scores['log_loss']:.3f}",
            )
        )
        text = f"below {at['threshold']:.3f}; {at['coverage']:.1%} get a name"
        text += f", {at['error']:.1%} of those a wrong one" if at["error"] is not None else ""
        if at["others"] is not None:
            text += f"; of other things {at['others']:.1%}"
        lines.append(("  unknown", text))
        leak = one.get("leakage", {})
        if "neighbouring_frame" in leak:
            lines.append(
                (
                    "  leakage",
                    f"{leak['neighbouring_frame']:.1%} of the test photos are "
                    "nearest to a neighbouring frame",
                )
            )
    return lines


def _inspection_lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what an inspection has found."""
    counts, criteria, index = found["counts"], found["criteria"], found["search"]["index"]
    how = (
        "every photo with every other"
        if index is None
        else (
            f"an approximate index, which finds {index['recall']:.1%} of the nearest {index['k']}"
        )
    )
    lines = [
        ("photos", f"{found['n_photos']:,} of {found['n_labels']} classes, by {how}"),
        ("copies", _groups_line(counts["exact"])),
        (f"from {criteria['near']:g}", _groups_line(counts["near"])),
        (
            "labels",
            f"{counts['mislabelled']:,} doubtful: most of the {criteria['k']} nearest "
            "photos carry another",
        ),
        ("outliers", f"{counts['outliers']:,} photos far from the rest of their class"),
    ]
    if found["n_unlabelled"]:
        lines.append(
            ("", f"{found['n_unlabelled']:,} without a label: only copies were looked for")
        )
    if found["too_small"]:
        lines.append(("", f"{len(found['too_small'])} classes have too few photos to tell"))
    seconds = found["seconds"]
    return [
        *lines,
        ("time", f"{sum(seconds.values()):.1f} s in all; search {seconds['search']:.1f} s"),
    ]


def _groups_line(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Say how many groups there are, and what they lie across."""
    text = f"{sum(c['photos'] for c in counts.values()):,} photos in "
    text += f"{sum(c['groups'] for c in counts.values()):,} groups"
    kinds = [f"{c['groups']:,} {_ACROSS[name]}" for name, c in counts.items() if c["groups"]]
    return text + (f": {', '.join(kinds)}" if kinds else "")


_ACROSS = {
    "labels": "across labels",
    "folders": "across folders",
    "photos": "in one folder",
    "film": "within a film",
    "frames": "of neighbouring frames",
}
