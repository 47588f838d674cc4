"""The commands about this machine: ``models`` and ``doctor``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from verger.cli.options import config_option, json_option
from verger.cli.terminal import download_bar, print_json, say, watch_for
from verger.config import HUB
from verger.errors import ConfigError, WeightsError


@click.group()
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
        say(row["name"])
        say(f"  {row['title']}; {row['license']}; {row['origin']}")
        say(f"  {row['input_size']}x{row['input_size']} photos to {row['n_features']} features")
        missing = row["problem"] or f"not on this machine; verger models fetch {row['name']}"
        where = row["weights"] or missing
        say(f"  weights: {where}")
        say(f"  sha256:  {row['sha256'] or 'known once fetched'}")
        say()
    say("FILE.onnx")
    say("  any ONNX model with one image input and one vector output, and FILE.toml")
    say()
    say("hf:ORG/NAME[@REV][:FILE]")
    say("  an ONNX encoder of a model hub, with its own preprocessing; docs/models.md has a table")


@models.command("fetch")
@click.argument("name")
@click.option("--accept-license", is_flag=True, help="Of hf:...: accept its licence.")
@click.option("--output", metavar="TENSOR", help="Of hf:...: the tensor that the features are.")
@click.option("--pool", type=click.Choice(("cls", "mean")), help="Of hf:...: tokens to one vector.")
def models_fetch(name: str, accept_license: bool, output: str | None, pool: str | None) -> None:
    """Fetch the weights of a model, by its name or as hf:ORG/NAME[@REV][:FILE]."""
    from verger.features.model import find_card, load_model
    from verger.features.model.checksum import sha256_of

    if name.startswith(HUB):
        from verger.features.model.hub import Choice, fetch_from_hub

        choice = Choice(accept_license=accept_license, output=output, pool=pool)
        with download_bar() as on_progress:
            path = fetch_from_hub(name, choice, on_progress)
            contract = load_model(str(path)).contract
        say(contract.model)
        say(f"{path}, card {path.with_suffix('.toml')}")
        say(f"contract {contract.hash}: {contract.n_features} features")
        return
    if accept_license or output or pool:
        raise ConfigError(
            f"model={name!r}: --accept-license, --output and --pool are of hf:... alone"
        )
    source = find_card(name).weights
    with download_bar() as on_progress:
        path = source.fetch(on_progress)
    say(str(path))
    say(f"sha256 {sha256_of(path)}")


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
    say(f"Total parameters: {total:,}, none of them trained by Verger")
    say(f"Weights:  {model.weights_path}")
    say(f"sha256:   {model.contract.weights_sha256}")
    verdict = {
        True: "compute what the published ImageNet weights compute",
        False: "are NOT the published ImageNet weights",
        None: "of your own",
    }
    say(f"          {verdict[model.published]}")
    say(f"Contract: {model.contract.hash}")
    say(f"Licence:  {model.license}")


@click.command()
@json_option()
def doctor(as_json: bool) -> None:
    """Look at Python, Java, Spark, memory and weights: what works, and what to do if not."""
    from verger.cli.doctor import examine

    with watch_for()("doctor", None):
        findings = examine()
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    for finding in findings if not as_json else ():
        mark = "ok    " if finding.works else "note  " if finding.optional else "FAILED"
        say(f"{mark}  {finding.name}: {finding.detail}")
        if finding.advice:
            say(f"        -> {finding.advice}")
    click.get_current_context().exit(0 if all(f.works or f.optional for f in findings) else 1)


def _print_layers(layers: tuple[Any, ...]) -> None:
    say(f"{'layer':<34} {'type':<24} {'output':<18} {'parameters':>12}")
    for layer in layers:
        shape = "x".join(map(str, layer.shape))
        say(f"{layer.name[:34]:<34} {layer.kind:<24} {shape:<18} {layer.n_params:>12,}")


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
