"""The commands around a classifier: ``classify`` and ``predict``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from verger.cli.options import (
    SPARK,
    config_options,
    extractor_option,
    frames_option,
    json_option,
    label_map_option,
    name_option,
    resolve_config,
    seed_option,
    weights_option,
)
from verger.cli.terminal import (
    download_bar,
    keep_page_up,
    print_json,
    print_rows,
    print_table,
    read_named,
    say,
    watch_for,
)
from verger.config import Config
from verger.errors import ConfigError

if TYPE_CHECKING:
    from verger.classify.predict import Prediction
    from verger.classify.recipe import Recipe


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
            "--other",
            multiple=True,
            metavar="LABEL",
            help="Label of photos of other things, which get no name; several allowed.",
        ),
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
        frames_option,
        click.option(
            "--test-share", default=0.25, show_default=True, help="Share that is held out."
        ),
        seed_option("Seed of all that is drawn."),
        label_map_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


_outs_argument = click.argument("outs", metavar="OUT...", nargs=-1, required=True)

_RECIPE = (
    "method",
    "on",
    "n_neighbors",
    "other",
    "split",
    "groups",
    "frames",
    "test_share",
    "seed",
)


def _label_map() -> dict[str, str]:
    from verger.classify.label_map import read_label_map

    path = click.get_current_context().params["label_map"]
    return read_label_map(path) if path else {}


def _recipe() -> Recipe:
    from verger.classify.recipe import Recipe

    given = click.get_current_context().params
    values = {name: given[name] for name in _RECIPE if given[name] is not None}
    return Recipe(**values, label_map=_label_map())


@classify.command("train")
@_outs_argument
@_recipe_options
@name_option
@config_options(*SPARK)
def classify_train(outs: tuple[str, ...], name: str, as_json: bool, **_: Any) -> None:
    """Write models/classifier.npz and models/classifier/ into OUT.

    Of several results of one contract, all photos are learnt, and the classifier lies in the first.
    """
    from verger.classify.stage import train_classifier

    config = resolve_config()
    record = train_classifier(
        outs[0], config, _recipe(), also=outs[1:], name=name, watch=watch_for(config)
    )
    if as_json:
        print_json(record)
    else:
        print_rows(_training_lines(record), names=11)
    keep_page_up(config)


@classify.command("evaluate")
@_outs_argument
@click.option(
    "--against",
    metavar="OUT2",
    help="Test the trained classifier on another result, instead of a split of this one.",
)
@_recipe_options
@name_option
@config_options(*SPARK)
def classify_evaluate(
    outs: tuple[str, ...], against: str | None, name: str, as_json: bool, **_: Any
) -> None:
    """Train on one part and test on another, or test on other photos; the report shows it."""
    from verger.classify.against import evaluate_against
    from verger.classify.evaluation import evaluate_split

    config = resolve_config()
    watch = watch_for(config)
    if against is None:
        record = evaluate_split(outs[0], config, _recipe(), also=outs[1:], name=name, watch=watch)
    else:
        _refuse_with_against(outs)
        record = evaluate_against(
            outs[0], against, config, name=name, label_map=_label_map(), watch=watch
        )
    if as_json:
        print_json(record)
    else:
        print_rows(_evaluation_lines(record), names=11)
    keep_page_up(config)


def _refuse_with_against(outs: Sequence[str]) -> None:
    """Refuse what would do nothing: the classifier is trained already."""
    if len(outs) > 1:
        raise ConfigError("--against tests the classifier of one OUT; name one")
    context = click.get_current_context()
    given = [n for n in _RECIPE if context.get_parameter_source(n) == ParameterSource.COMMANDLINE]
    if given:
        flag = given[0].replace("_", "-")
        raise ConfigError(
            f"--{flag} goes with a split; --against tests what verger classify train has trained"
        )


@classify.command("compare")
@click.argument("out", metavar="OUT")
@json_option("Print a list of objects as JSON.")
def classify_compare(out: str, as_json: bool) -> None:
    """Print the classifiers of a result in one table: how trained, and what they are worth."""
    from verger.classify.compare import compare_classifiers

    rows = compare_classifiers(out)
    if as_json:
        print_json(rows)
    else:
        print_table(_COMPARED, [_compared_cells(row) for row in rows])


@classify.command("save")
@click.argument("out", metavar="OUT")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
@name_option
@weights_option
@extractor_option
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def classify_save(
    out: str, path: Path, name: str, weights: str | None, model: str | None, overwrite: bool
) -> None:
    """Write a classifier and its model into one file, which predict --model loads alone."""
    from verger.classify.bundle import write_bundle
    from verger.classify.predict import Predictor
    from verger.files.folder import check_target

    # Before weights are downloaded for nothing.
    check_target(path, "fruit.verger", overwrite=overwrite)
    with download_bar() as on_progress:
        predictor = Predictor.load(out, weights, model, name=name, on_progress=on_progress)
    written = write_bundle(path, predictor.classifier, predictor.model, overwrite=overwrite)
    n_known = len(predictor.classifier.reference_paths)
    size = f"{written.stat().st_size / 1e6:.1f} MB"
    say(f"{written}, {size}, with the paths and features of {n_known:,} known photos")


@click.command()
@click.argument("photos", metavar="PHOTO...", nargs=-1, required=True)
@click.option(
    "--model",
    "out",
    metavar="OUT",
    required=True,
    help="Result with a classifier, or a file of it.",
)
@name_option
@weights_option
@extractor_option
@label_map_option
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Give a name from this probability on, instead of the classifier's own threshold.",
)
@json_option("Print a list of objects as JSON.")
def predict(
    photos: tuple[str, ...],
    *,
    out: str,
    name: str,
    weights: str | None,
    model: str | None,
    threshold: float | None,
    as_json: bool,
    **_: Any,
) -> None:
    """Say what is on photos: files, folders, or - for standard input. No Spark, no Java."""
    from verger.classify.predict import Predictor, list_named
    from verger.features.outcomes import Decoding

    paths, label_map = list_named(photos), _label_map()
    with download_bar() as on_progress:
        predictor = Predictor.load(out, weights, model, name=name, on_progress=on_progress)
    predictor = replace(predictor, label_map=label_map)
    if threshold is not None:
        predictor = replace(
            predictor, classifier=replace(predictor.classifier, threshold=threshold)
        )
    if len(paths) > 1:  # one that hangs or crashes a decoder must not cost the others
        decoding = Decoding(apart=True, timeout_s=Config().decode_timeout_s)
        predictor = replace(predictor, decoding=decoding)
    failed, rows = False, []
    for prediction in predictor.iter_predictions(map(read_named, paths), paths):
        failed |= prediction.error is not None
        if as_json:
            rows.append(prediction.as_dict())
        else:
            for line in _prediction_lines(prediction):
                say(line)
    if as_json:
        print_json(rows)
    click.get_current_context().exit(1 if failed else 0)


def _prediction_lines(prediction: Prediction) -> list[str]:
    if prediction.error is not None:
        return [f"{prediction.path}  error: {prediction.error} ({prediction.detail})"]
    lines = [f"{prediction.path}  {prediction.prediction or 'unknown'}"]
    lines += [f"  {score.probability:6.1%}  {score.label}" for score in prediction.top]
    if prediction.unlike:
        lines.append("  unlike every known photo: the probabilities may mean nothing")
    return lines + [f"  near {near.path} ({near.label})" for near in prediction.nearest]


#: Columns of the table of classifiers.
_COMPARED = ("name", "trained", "classes", "tested", "right", "named", "wrong", "others named")


def _compared_cells(row: Mapping[str, Any]) -> list[str]:
    def share(name: str) -> str:
        return "-" if row[name] is None else f"{row[name]:.1%}"

    by = row["against"] or row["split"]
    tested = f"{row['n_test']:,} by {by}" if by else "not yet"
    if row["tested_as"]:
        options = {name: f"{name}={value}" for name, value in row["tested_as"].items()}
        options |= {"label_map": "another label_map"} if "label_map" in options else {}
        tested += f", trained with {', '.join(options.values())}"
    trained = f"{row['method']} on {row['on']}" + ("" if row["trained"] else ", not kept")
    shares = [share(name) for name in ("accuracy", "coverage", "error", "others")]
    return [row["name"] or "(no name)", trained, str(row["n_labels"]), tested, *shares]


def _training_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what was trained."""
    recipe = record["recipe"]
    photos = f"{record['n_photos']:,} photos of {record['n_labels']} classes"
    if record["n_unlabelled"]:
        photos += f"; {record['n_unlabelled']:,} without a label left out"
    if record.get("n_without_features"):
        photos += f"; {record['n_without_features']:,} without features left out"
    chosen = f", penalty {record['reg_param']:g}" if "reg_param" in record else ""
    return [
        ("photos", photos),
        ("trained", f"{recipe['method']} on {recipe['on']}{chosen}"),
        ("unknown", f"below {record['threshold']:.3f}{_of_others(recipe['other'])}"),
        *_few_lines(record),
        (
            "time",
            f"{sum(record['seconds'].values()):.1f} s in all; "
            f"train {record['seconds']['train']:.1f} s",
        ),
    ]


#: Thresholds whose effect is told beside that of the chosen one.
_TOLD_THRESHOLDS = (0.5, 0.9)


def _of_others(labels: Sequence[str]) -> str:
    return f", and photos of {' and '.join(map(repr, labels))}" if labels else ""


def _few_lines(fit: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say if the threshold rests on too few photos to show what it promises."""
    from verger.classify.scores import ENOUGH_NAMED, ENOUGH_OTHERS

    n, n_others = fit["n_held_out"], fit["n_others"]
    if n >= ENOUGH_NAMED and n_others >= ENOUGH_OTHERS:
        return []
    text = f"rests on {n:,} photos held out and {n_others:,} of other things, too few to show"
    return [("", f"{text} what it promises: {ENOUGH_NAMED} and {ENOUGH_OTHERS} would")]


def _others_of(one: Mapping[str, Any]) -> str:
    """Say what the other things of an evaluation are."""
    if one["others"]:
        return " and ".join(map(repr, one["others"]))
    if one["split"] == "against":
        return "photos with a label that it does not know"
    return "photos of classes that were withheld from it"


def _threshold_words(at: Mapping[str, Any], others: str) -> str:
    text = f"{at['threshold']:.3f}: {at['coverage']:.1%} get a name"
    text += f", {at['error']:.1%} of those a wrong one" if at["error"] is not None else ""
    return text + (f"; {at['others']:.1%} of {others}" if at["others"] is not None else "")


def _alarm_lines(alarm: Mapping[str, Any] | None, others: str) -> list[tuple[str, str]]:
    if alarm is None:
        return []
    groups = {"right names": "right", "wrong names": "wrong", others: "others"}
    told = [
        f"{alarm[name][0]:,} of {alarm[name][1]:,} {what}"
        for what, name in groups.items()
        if alarm[name][1]
    ]
    return [("  alarm", f"unlike every known photo are {', '.join(told)}")] if told else []


def _evaluation_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what an evaluation found: the split asked for first, then the one beside."""
    lines = []
    for one in filter(None, (record["evaluation"], record["beside"])):
        scores = one["scores"]
        score = (
            f"{scores['accuracy']:.1%} of {scores['n']:,} photos right, "
            f"{scores['top5']:.1%} among the first five; log loss {scores['log_loss']:.3f}"
        )
        if one["split"] != "against":
            score += f"; {OWN_PHOTOS}"
        lines.append((one["split"], score))
        others = _others_of(one)
        lines.append(("  unknown", f"below {_threshold_words(one['threshold'], others)}"))
        told = [at for at in one["curve"] if at["threshold"] in _TOLD_THRESHOLDS]
        lines += [("", f"at {_threshold_words(at, others)}") for at in told]
        lines += _few_lines(one["training"]) if "training" in one else []
        lines += [*_other_lines(one), *_alarm_lines(one["alarm"], others)]
        leak = one.get("leakage", {})
        if "neighbouring_frame" in leak:
            share = f"{leak['neighbouring_frame']:.1%} of the test photos"
            lines.append(("  leakage", f"{share} are nearest to a neighbouring frame"))
    if films := record.get("films"):
        text = f"{films['alike']} of {films['named']} runs of numbered names: the next photo is"
        lines.append(("films", f"{text} more alike than a distant one"))
    if near := record.get("near_copies"):
        text = f"{near['n_groups']:,} groups of photos that are nearly the same"
        lines.append(("groups", f"{text}, told by their features; groups of your own tell more"))
    return lines


#: What no split of a result can tell, said where its score is.
OWN_PHOTOS = "of its own photos: other places and cameras are seen by --against alone"
#: Labels of other things that are printed.
_SHOWN_OTHERS = 8


def _other_lines(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what became of the other things and the rejected photos of another result."""
    lines = []
    if others := one.get("other_labels"):
        n, n_named = (sum(other[key] for other in others) for key in ("n", "named"))
        text = f"{n:,} photos of {len(others)} labels that it does not know: {n_named:,} get a name"
        lines.append(("  others", text))
        for other in others[:_SHOWN_OTHERS]:
            taken = f", mostly {other['taken_for']}" if other["taken_for"] else ""
            lines.append(("", f"  {other['label']}: {other['named']} of {other['n']:,}{taken}"))
        if len(others) > _SHOWN_OTHERS:
            lines.append(("", f"  and {len(others) - _SHOWN_OTHERS} more labels (--json)"))
    if one.get("n_rejected"):
        lines.append(("  rejected", f"{one['n_rejected']:,} photos have no features"))
    return lines
