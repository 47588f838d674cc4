"""Photos of imaginary fruit, rendered here so that ``verger demo`` needs no download.

The set looks like Fruits-360: one folder a class, one solid object on pure white, one photo a
step of its rotation. A class follows from ``(seed, index)`` alone.

An object is a ball that was stretched, pinched, ribbed or bent; what undoes that says whether a
point is inside. Its axis is z, with the stem at +z. Seen by the camera x is right, y up and z
towards the viewer. Points are float32 of shape (3, ...), colours are in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from verger.errors import ConfigError, OutputError

Array: TypeAlias = npt.NDArray[np.floating[Any]]

#: Half of the side of the view, and the share of a photo's side that an object fills.
VIEW, FILL = 1.15, 0.92
#: Steps from the viewer to the surface, and their length as a share of the gap.
STEPS, STRIDE = 36, 0.6
LIGHT = np.array([-0.42, 0.55, 0.72], np.float32)
HALFWAY = np.array([-0.24, 0.31, 0.92], np.float32)  # between the light and the viewer
STEM_RGB = (0.36, 0.29, 0.16)


@dataclass(frozen=True)
class Shape:
    """How a ball is changed, in units of its radius.

    A positive ``top`` is a dimple, a negative one a tip; a positive ``ribs_depth`` gives round
    ribs, a negative one sharp ridges. The axis leans by ``tilt_rad`` from the vertical.
    """

    name: str
    stretch: float = 1.0
    neck: float = 0.0
    top: float = 0.0
    ribs: int = 1
    ribs_depth: float = 0.0
    bend_rad: float = 0.0
    tilt_rad: float = 0.5


SHAPES = (
    Shape("Round", top=0.25),
    Shape("Flat", stretch=0.62, top=0.3),
    Shape("Long", stretch=2.3, tilt_rad=0.4),
    Shape("Bent", stretch=3.2, top=-0.1, bend_rad=1.5, tilt_rad=1.35),
    Shape("Pear-shaped", stretch=1.45, neck=0.55, tilt_rad=0.3),
    Shape("Pointed", stretch=1.2, top=-0.3, tilt_rad=0.4),
    Shape("Ribbed", stretch=0.78, top=0.3, ribs=9, ribs_depth=0.3),
    Shape("Star-shaped", stretch=1.5, ribs=5, ribs_depth=-0.75, tilt_rad=0.7),
    Shape("Lobed", stretch=1.15, top=0.3, ribs=4, ribs_depth=0.3),
)
#: Name to the colours of the ground and of the pattern on it.
COLOURS = {
    "Red": ((0.80, 0.12, 0.13), (0.97, 0.80, 0.36)),
    "Orange": ((0.95, 0.53, 0.10), (0.76, 0.24, 0.08)),
    "Yellow": ((0.96, 0.83, 0.22), (0.86, 0.42, 0.12)),
    "Green": ((0.29, 0.52, 0.17), (0.72, 0.80, 0.36)),
    "Pale Green": ((0.71, 0.82, 0.40), (0.30, 0.48, 0.16)),
    "Purple": ((0.42, 0.16, 0.44), (0.77, 0.56, 0.74)),
    "Brown": ((0.52, 0.35, 0.21), (0.83, 0.69, 0.47)),
    "Rosé": ((0.94, 0.54, 0.58), (0.72, 0.13, 0.27)),
    "Crème": ((0.94, 0.87, 0.69), (0.66, 0.47, 0.28)),
    "Blue": ((0.22, 0.27, 0.52), (0.62, 0.68, 0.84)),
    "Maroon": ((0.42, 0.07, 0.15), (0.83, 0.35, 0.30)),
}
TEXTURES = ("", "Striped", "Spotted", "Blushed", "Marbled")


@dataclass(frozen=True)
class Fruit:
    """What the look of a class follows from; ``name`` can be a folder on any system."""

    name: str
    shape: Shape
    colour: str
    texture: str
    seed: int
    index: int


def make_fruit(index: int, *, seed: int = 0) -> Fruit:
    """Describe one class; no other index has its name under the same seed.

    Parameters
    ----------
    index : int
        Number of the class, from 0.
    seed : int
        From 0. Shuffles which shape meets which colour, and every detail.

    Raises
    ------
    ConfigError
        A number is out of bounds.
    """
    _check_bounds("index", index, 0)
    _check_bounds("seed", seed, 0)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    options = (SHAPES, tuple(COLOURS), TEXTURES)
    # The lengths have no common factor: by the Chinese remainder theorem no combination comes
    # twice before all have come.
    places = [order[index % len(order)] for order in (rng.permutation(len(o)) for o in options)]
    shape, colour, texture = (SHAPES[places[0]], options[1][places[1]], TEXTURES[places[2]])
    lap = index // math.prod(len(option) for option in options)
    words = (shape.name, colour, texture, str(lap + 1) if lap else "")
    return Fruit(" ".join(filter(None, words)), shape, colour, texture, seed, index)


def render_dataset(
    folder: Path, *, n_classes: int = 30, per_class: int = 10, seed: int = 0, size: int = 100
) -> list[Path]:
    """Render a class-per-folder data set of objects turning on a white ground.

    Parameters
    ----------
    folder : Path
        Made if it is missing. Photos of the same name are overwritten, others stay.
    n_classes : int
        From 1.
    per_class : int
        Number of rotation steps, from 1 to 360.
    seed : int
        From 0. The same seed gives the same pixels with the same NumPy and Pillow.
    size : int
        Height and width of a photo in pixels, from 16.

    Returns
    -------
    list of Path
        ``<folder>/<class name>/<degrees>_<size>.jpg``, sorted.

    Raises
    ------
    ConfigError
        A number is out of bounds.
    OutputError
        The folder cannot be written.
    """
    _check_bounds("n_classes", n_classes, 1)
    _check_bounds("per_class", per_class, 1, 360)
    _check_bounds("size", size, 16)
    paths = []
    for fruit in (make_fruit(index, seed=seed) for index in range(n_classes)):
        for angle_deg in (step * 360 // per_class for step in range(per_class)):
            path = folder / fruit.name / f"{angle_deg}_{size}.jpg"
            photo = Image.fromarray(render_photo(fruit, math.radians(angle_deg), size=size))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                photo.save(path, quality=90)
            except OSError as err:
                raise OutputError(f"{path} cannot be written: {err}") from err
            paths.append(path)
    return sorted(paths)


def render_photo(fruit: Fruit, angle_rad: float, *, size: int = 100) -> npt.NDArray[np.uint8]:
    """Render one photo of a class, turned by an angle.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        RGB with axes (height, width, channel), pure white around the object.
    """
    tilt_rad = fruit.shape.tilt_rad
    # The object is set upright, leans, turns about the vertical and is seen from above.
    turn = _product(_about_y(angle_rad + fruit.index), _about_x(tilt_rad - math.pi / 2))
    turn = _product(_about_x(0.2 + 0.6 * tilt_rad), turn)
    seen, points = _trace(fruit.shape, turn, 3 * size // 2)
    # The gap grows fastest straight outwards.
    nudges = 0.01 * np.eye(3, dtype=np.float32)[:, :, None]
    normal = np.stack([_gap(fruit.shape, points + nudge) for nudge in nudges])
    normal = _product(turn, normal - _gap(fruit.shape, points))
    normal /= np.linalg.norm(normal, axis=0) + 1e-12
    rng = np.random.default_rng(np.random.SeedSequence(fruit.seed, spawn_key=(1, fruit.index)))
    # A lamp in a tent: the light wraps around the object, and the rim is a little darker.
    diffuse = 0.42 + 0.66 * np.clip((_product(LIGHT, normal) + 0.35) / 1.35, 0, 1)
    diffuse *= 0.8 + 0.2 * np.sqrt(np.clip(normal[2], 0, 1))
    shine = rng.uniform(0.04, 0.34) * np.clip(_product(HALFWAY, normal), 0, 1) ** 28
    image = np.full((*seen.shape, 3), 255, np.uint8)
    image[seen] = np.round(255 * np.clip(_skin(fruit, points, rng) * diffuse + shine, 0, 1)).T
    rows, columns = np.nonzero(seen)
    reach = max(np.ptp(rows), np.ptp(columns)) / FILL / 2
    x, y = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
    box = (x - reach, y - reach, x + reach, y + reach)
    twice, extent = (2 * size, 2 * size), Image.Transform.EXTENT
    photo = Image.fromarray(image).transform(
        twice, extent, box, Image.Resampling.BILINEAR, fillcolor="white"
    )
    return np.asarray(photo.reduce(2))


def _check_bounds(name: str, value: int, least: int, most: float = math.inf) -> None:
    if value < least:
        raise ConfigError(f"{name}={value} must be at least {least}")
    if value > most:
        raise ConfigError(f"{name}={value} must be at most {most}")


def _trace(shape: Shape, turn: Array, grid: int) -> tuple[npt.NDArray[np.bool_], Array]:
    """Return where the object is seen, (grid, grid), and its points there, (3, n)."""
    across = np.linspace(-VIEW, VIEW, grid, dtype=np.float32)
    x, y = np.meshgrid(across, -across)
    points = _product(turn.T, np.stack([x, y, np.full_like(x, VIEW)]).reshape(3, -1))
    ahead, longest = turn.T[:, 2:], max(1, shape.stretch)
    for _ in range(STEPS):  # shorter than the gap, so that none crosses a ridge, but never tiny
        gap = _gap(shape, points)
        points -= ahead * np.where(gap > 0.01, np.maximum(STRIDE * gap, 0.04), 0) / longest
    seen = (_gap(shape, points) < 0.05) & (_product(turn[2], points) > -VIEW)
    return seen.reshape(grid, grid), points[:, seen]


def _gap(shape: Shape, points: Array) -> Array:
    """Return how far points lie outside, less than 0 inside, when the ball is a ball again."""
    x, y, z = points * max(1, shape.stretch)
    if shape.bend_rad:
        radius = 2 * shape.stretch / shape.bend_rad
        x, z = np.hypot(x + radius, z) - radius, radius * np.arctan2(z, x + radius)
    z = z / shape.stretch
    width = np.hypot(x, y) / (1 - shape.neck * (0.5 + 0.5 * np.tanh((z - 0.2) / 0.26)))
    if shape.ribs > 1:
        waves = np.abs(np.cos(np.arctan2(y, x) * shape.ribs / 2)) - 0.64
        width = width / (1 + shape.ribs_depth * waves)
    length = np.hypot(width, z) + 1e-6
    ends = np.where(z > 0, shape.top, shape.top / 3) * np.exp(-((width / length / 0.38) ** 2))
    gap: Array = length - 1 + ends
    return gap


def _skin(fruit: Fruit, points: Array, rng: np.random.Generator) -> Array:
    """Return the colours of points, (3, n)."""
    tint = rng.normal(0, 0.025, 3)
    ground, pattern, stem = (
        np.asarray(rgb, np.float32)[:, None]
        for rgb in (*(np.add(rgb, tint) for rgb in COLOURS[fruit.colour]), STEM_RGB)
    )
    rgb = _mix(ground, pattern, _pattern(fruit.texture, points, rng))
    rgb = rgb * (1 + 0.06 * _noise(points, 3.0, rng) + 0.03 * _noise(points, 14.0, rng))
    off_axis = np.hypot(points[0], points[1]) * max(1, fruit.shape.stretch)
    at_an_end = np.exp(-((off_axis / np.where(points[2] > 0, 0.13, 0.08)) ** 2))
    return np.clip(_mix(rgb, stem, 0.85 * at_an_end), 0, 1)


def _pattern(texture: str, points: Array, rng: np.random.Generator) -> Array:
    """Return how much of the pattern's colour shows, in [0, 1], of shape (n,)."""
    if texture == "Striped":
        around_rad, wobble = np.arctan2(points[1], points[0]), 0.5 * _noise(points, 5.0, rng)
        return _step(np.cos(around_rad * rng.integers(7, 12) + wobble), -0.1, 0.5)
    if texture == "Spotted":
        return _step(_noise(points, 18.0, rng), 0.8, 1.1)
    if texture == "Blushed":
        return 0.9 * _step(points[0] + 0.12 * _noise(points, 4.0, rng), -0.25, 0.5)
    if texture == "Marbled":
        return 1 - _step(np.abs(_noise(points, 6.0, rng)), 0.1, 0.45)
    return 0.4 * _step(_noise(points, 3.0, rng), -0.8, 1.6)


def _noise(points: Array, frequency: float, rng: np.random.Generator) -> Array:
    """Return smooth noise, about standard normal, of shape (n,)."""
    waves = rng.normal(size=(14, 3)).astype(np.float32)
    lengths = np.linalg.norm(waves, axis=1, keepdims=True)
    waves *= frequency * rng.uniform(0.6, 1.4, (14, 1)) / lengths
    phases_rad = rng.uniform(0, 2 * math.pi, (14, 1)).astype(np.float32)
    total: Array = np.sin(_product(waves, points) + phases_rad).sum(axis=0)
    return total * math.sqrt(2 / 14)


def _product(matrix: Array, vectors: Array) -> Array:
    # Not by BLAS, whose last bits, and so the pixels, differ from build to build.
    product: Array = np.einsum(
        "...i,i...->..." if matrix.ndim == 1 else "ij,j...->i...", matrix, vectors
    )
    return product


def _mix(under: Array, over: Array, amount: Array) -> Array:
    return under + amount * (over - under)


def _step(values: Array, low: float, high: float) -> Array:
    ramp: Array = np.clip((values - low) / (high - low), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _about_x(angle_rad: float) -> Array:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], np.float32)


def _about_y(angle_rad: float) -> Array:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], np.float32)
