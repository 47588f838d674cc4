"""What a model's own files on the hub say of its pixels, as keys of Verger's card.

Two forms are read: ``preprocessor_config.json`` of transformers, and ``config.json`` of timm. Every
key that could change a pixel is translated or refused by name; nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from verger.errors import ConfigError

Card = dict[str, Any]

#: Keys of a processor that change no pixel.
_SILENT = {
    "_processor_class",
    "_valid_processor_keys",
    "data_format",
    "do_convert_rgb",
    "feature_extractor_type",
    "image_processor_type",
    "processor_class",
}
_TRANSLATED = {
    "crop_pct",
    "crop_size",
    "default_to_square",
    "do_center_crop",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
}
#: Pillow's numbers of the filters.
_RESAMPLES = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
# A size that is one number: a square to these, the shorter edge to those (their default_to_square).
_SQUARES = ("Beit", "DeiT", "DPT", "SegFormer", "Siglip", "ViT")
_EDGES = ("Bit", "CLIP", "Levit")

#: Keys of timm that change no pixel of one photo that is computed.
_TIMM_SILENT = {
    "architecture",
    "classifier",
    "custom_load",
    "description",
    "file",
    "first_conv",
    "fixed_input_size",
    "hf_hub_filename",
    "hf_hub_id",
    "label_descriptions",
    "label_names",
    "label_offset",
    "license",
    "min_input_size",
    "notes",
    "num_classes",
    "origin_url",
    "paper_ids",
    "paper_name",
    "pool_size",
    "source",
    "tag",
    "test_crop_pct",
    "test_input_size",
    "url",
}
_TIMM_TRANSLATED = {"crop_mode", "crop_pct", "input_size", "interpolation", "mean", "std"}


def translate(values: object, where: str) -> Card:
    """Return what a model's file says of its pixels, as keys of a card.

    Parameters
    ----------
    values : object
        The JSON of ``preprocessor_config.json``, or of timm's ``config.json``.
    where : str
        Names the file in errors.

    Raises
    ------
    ConfigError
        If a key is unknown, or has a value that Verger does not compute.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: is no JSON object")
    try:
        if isinstance(values.get("pretrained_cfg"), dict):
            return _timm(values["pretrained_cfg"], where)
        if "interpolation" in values and "input_size" in values:
            return _timm(values, where)
        return _processor(values, where)
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as err:
        if isinstance(err, ConfigError):
            raise
        raise ConfigError(f"{where}: says too little of its pixels: {err!r}") from err


def _refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for name, value in values.items():
        if name in known or value is None or (name.startswith("do_") and value is False):
            continue
        raise ConfigError(
            f"{where}: {name} = {value!r} is not translated; write the card FILE.toml of a "
            "FILE.onnx yourself (docs/models.md)"
        )


def _processor(values: Mapping[str, Any], where: str) -> Card:
    _refuse_unknown(values, _SILENT | _TRANSLATED, where)
    if values.get("do_convert_rgb") is False or values.get("do_resize") is False:
        raise ConfigError(f"{where}: do_convert_rgb and do_resize must not be false")
    card = _normalisation(values)
    resample = values.get("resample")  # each class of transformers has a default of its own
    if resample not in _RESAMPLES:
        raise ConfigError(f"{where}: resample = {resample!r} must be one of {_RESAMPLES}")
    return card | _geometry(values, where) | {"resample": _RESAMPLES[resample]}


def _normalisation(values: Mapping[str, Any]) -> Card:
    """Bring ``(pixel x factor - mean) / std`` to ``(pixel - mean) / std``, in units of a pixel."""
    factor = float(values.get("rescale_factor", 1 / 255))
    scale = 1 / factor if values.get("do_rescale", True) is not False else 1.0
    if math.isclose(scale, 255, rel_tol=1e-6):
        scale = 255.0
    if values.get("do_normalize", True) is False:
        return {"mean": [0.0], "std": [scale]}
    mean, std = ([float(v) * scale for v in values[key]] for key in ("image_mean", "image_std"))
    return {"mean": mean, "std": std}


def _geometry(values: Mapping[str, Any], where: str) -> Card:
    size, kind = values["size"], str(values.get("image_processor_type") or "")
    kind = kind or str(values.get("feature_extractor_type") or "")
    if kind.startswith("ConvNext"):
        return _convnext(values, where)
    if values.get("crop_pct") is not None:
        raise ConfigError(f"{where}: crop_pct of {kind or 'no image_processor_type'} is unknown")
    crop = None
    if values.get("do_center_crop", values.get("crop_size") is not None):
        if values.get("crop_size") is None:
            raise ConfigError(f"{where}: do_center_crop without crop_size is not translated")
        crop = _square(values["crop_size"], f"{where}: crop_size")
    if _is_edge(size, kind, values.get("default_to_square"), where):
        edge = int(size["shortest_edge"] if isinstance(size, dict) else size)
        if crop is None:
            raise ConfigError(f"{where}: size = {size!r} without a crop gives no square")
        return _cropped(crop, edge, "shortest_edge", "center", where)
    side = _square(size, f"{where}: size")
    if crop in (None, side):
        return {"input_size": side}
    return _cropped(int(str(crop)), side, "square", "center", where)


def _cropped(crop: int, side: int, rule: str, middle: str, where: str) -> Card:
    if side < crop:
        raise ConfigError(f"{where}: crop of {crop} is larger than the resized photo, {side}")
    return {"input_size": crop, "resize": rule, "resize_size": side, "crop": middle}


def _is_edge(size: Any, kind: str, to_square: bool | None, where: str) -> bool:
    if isinstance(size, dict):
        if set(size) not in ({"shortest_edge"}, {"height", "width"}):
            raise ConfigError(f"{where}: size = {size!r} must have shortest_edge, or height, width")
        return "shortest_edge" in size
    if to_square is not None:
        return not to_square
    if kind.startswith(_EDGES):
        return True
    if kind.startswith(_SQUARES):
        return False
    raise ConfigError(f"{where}: size = {size!r} may be a square or an edge, for {kind or 'none'}")


def _square(size: Any, where: str) -> int:
    height, width = (size["height"], size["width"]) if isinstance(size, dict) else (size, size)
    if height != width:
        raise ConfigError(f"{where} = {size!r} must be a square")
    return int(height)


def _convnext(values: Mapping[str, Any], where: str) -> Card:
    """Resize the shorter edge to size / crop_pct and crop, or squeeze where the size is 384."""
    size = values["size"]
    side = int(size["shortest_edge"] if isinstance(size, dict) else size)
    if side >= 384:
        return {"input_size": side}
    edge = int(side / float(values.get("crop_pct") or 224 / 256))
    return _cropped(side, edge, "shortest_edge", "center", where)


def _timm(values: Mapping[str, Any], where: str) -> Card:
    _refuse_unknown(values, _TIMM_SILENT | _TIMM_TRANSLATED, where)
    channels, height, width = values["input_size"]
    if channels != 3 or height != width:
        raise ConfigError(f"{where}: input_size = {values['input_size']!r} must be [3, size, size]")
    resample, mode = values.get("interpolation", "bicubic"), values.get("crop_mode") or "center"
    if resample not in _RESAMPLES.values():
        raise ConfigError(f"{where}: interpolation = {resample!r} must be bicubic or bilinear")
    if mode not in ("center", "squash"):
        raise ConfigError(f"{where}: crop_mode = {mode!r} must be center or squash")
    rule = "square" if mode == "squash" else "shortest_edge"
    side = math.floor(height / float(values.get("crop_pct") or 0.875))
    card = {name: [float(v) * 255 for v in values[name]] for name in ("mean", "std")}
    middle = _cropped(int(height), side, rule, "center_even", where)
    return card | middle | {"resample": resample}
