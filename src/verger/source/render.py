"""Photos of imaginary fruit, rendered here so that ``verger demo`` needs no download.

The set looks like Fruits-360: one folder a class, one solid object on pure white, one photo a
step of its rotation. Every object is a solid of revolution that may be ribbed or bent, with a
procedural skin. A class follows from ``(seed, index)`` alone.

An object's axis of revolution is z, with the stem at +z. Seen by the camera x is right, y up and
z towards the viewer. Meshes are float32 of shape (3, polar, around); colours are in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from verger.errors import ConfigError, OutputError

Array: TypeAlias = npt.NDArray[np.floating[Any]]

SUPERSAMPLE = 2
LIGHT = np.array([-0.42, 0.55, 0.72], np.float32)
HALFWAY = np.array([-0.24, 0.31, 0.92], np.float32)  # between the light and the viewer
STEM_RGB = (0.36, 0.29, 0.16)
LEAF_RGB = (0.33, 0.45, 0.18)


@dataclass(frozen=True)
class Shape:
    """A solid of revolution, in units of its equatorial radius.

    A positive ``top`` is a dimple, a negative one a tip; a positive ``ribs_depth`` gives round
    ribs, a negative one sharp ridges. The axis leans by ``tilt_rad`` from the vertical.
    """

    name: str
    stretch: float = 1.0
    blunt: float = 0.0
    neck: float = 0.0
    top: float = 0.0
    ribs: int = 1
    ribs_depth: float = 0.0
    bend_rad: float = 0.0
    tilt_rad: float = 0.5


SHAPES = (
    Shape("Round", top=0.2),
    Shape("Flat", stretch=0.62, top=0.3),
    Shape("Long", stretch=2.3, blunt=0.5, tilt_rad=0.4),
    Shape("Bent", stretch=3.2, blunt=0.5, top=-0.1, bend_rad=1.5, tilt_rad=1.35),
    Shape("Pear-shaped", stretch=1.45, neck=0.55, tilt_rad=0.3),
    Shape("Pointed", stretch=1.2, top=-0.3, tilt_rad=0.4),
    Shape("Ribbed", stretch=0.78, top=0.26, ribs=9, ribs_depth=0.3),
    Shape("Star-shaped", stretch=1.5, blunt=0.2, ribs=5, ribs_depth=-0.75, tilt_rad=0.7),
    Shape("Lobed", stretch=1.15, blunt=0.6, top=0.22, ribs=4, ribs_depth=0.3),
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
    points, normals, rgb, gloss = _surface(fruit, size)
    tilt_rad = fruit.shape.tilt_rad
    # The object is set upright, leans, turns about the vertical and is seen from above.
    seen_from = _about_x(0.2 + 0.6 * tilt_rad) @ _about_y(angle_rad + fruit.index)
    turn = seen_from @ _about_x(tilt_rad - math.pi / 2)
    vertex = _nearest(_product(turn, points), size * SUPERSAMPLE)
    hit = vertex >= 0
    normal = _product(turn, normals[:, vertex[hit]])
    # A lamp in a tent: the light wraps around the object, and the rim is a little darker.
    diffuse = 0.42 + 0.66 * np.clip((_product(LIGHT, normal) + 0.35) / 1.35, 0, 1)
    diffuse = diffuse * (0.8 + 0.2 * np.sqrt(np.clip(normal[2], 0, 1)))
    shine = gloss * np.clip(_product(HALFWAY, normal), 0, 1) ** 28
    image = np.full((*vertex.shape, 3), 255, np.uint8)
    image[hit] = np.round(255 * np.clip(rgb[:, vertex[hit]] * diffuse + shine, 0, 1)).T
    # The median closes single cells that the mesh misses where it is stretched.
    smooth = Image.fromarray(image).filter(ImageFilter.MedianFilter(3))
    return np.asarray(smooth.reduce(SUPERSAMPLE))


def _check_bounds(name: str, value: int, least: int, most: float = math.inf) -> None:
    if value < least:
        raise ConfigError(f"{name}={value} must be at least {least}")
    if value > most:
        raise ConfigError(f"{name}={value} must be at most {most}")


def _nearest(points: Array, grid: int) -> npt.NDArray[np.int64]:
    """Return the vertex nearest to the viewer at each cell of a raster, -1 where there is none."""
    low, high = points[:2].min(axis=1), points[:2].max(axis=1)
    scale = 0.92 * grid / (high - low).max()
    # Far to near: of several values for one cell NumPy keeps the last. It sorts 16-bit integers
    # in linear time, and they are fine enough.
    order = np.argsort((points[2] * 20_000).astype(np.int16), kind="stable")
    x, y = (points[:2, order] - ((low + high) / 2)[:, None]) * scale + grid / 2
    nearest = np.full((grid, grid), -1)
    nearest[grid - 1 - y.astype(int), x.astype(int)] = order
    return nearest


@lru_cache(maxsize=1)  # a class is rendered photo by photo
def _surface(fruit: Fruit, size: int) -> tuple[Array, Array, Array, float]:
    """Return points, normals and colours, each of shape (3, vertex), and the gloss."""
    rng = np.random.default_rng(np.random.SeedSequence(fruit.seed, spawn_key=(1, fruit.index)))
    n_polar = round(1.5 * size * SUPERSAMPLE)  # about one vertex a cell along a meridian
    n_around = round(2 * n_polar * (1 + abs(fruit.shape.ribs_depth)))
    # Half a step off the poles, where a row would have no direction to take a normal from.
    polar_rad = ((np.arange(n_polar, dtype=np.float32) + 0.5) * (math.pi / n_polar))[:, None]
    around_rad = np.arange(n_around, dtype=np.float32) * (2 * math.pi / n_around)
    body = _body(fruit.shape, polar_rad, around_rad, rng)
    parts = [(body, _skin(fruit, body, polar_rad, around_rad, rng))]
    if fruit.shape.top >= 0 and rng.random() < 0.6:
        parts.append(_stem(body[:, 0].mean(axis=1), n_polar // 4))
    points = np.hstack([mesh.reshape(3, -1) for mesh, _ in parts])
    normals = np.hstack([_normals(mesh).reshape(3, -1) for mesh, _ in parts])
    rgb = np.hstack([colours.reshape(3, -1) for _, colours in parts])
    return points, normals, rgb, rng.uniform(0.04, 0.34)


def _body(shape: Shape, polar_rad: Array, around_rad: Array, rng: np.random.Generator) -> Array:
    """Return the points of the mesh, inside a ball of radius 1 about the origin."""
    height, width = np.cos(polar_rad), np.sin(polar_rad)
    sphere = _revolve(width, height, around_rad)
    lumps = 1 + 0.018 * _noise(sphere, 2.0, rng) + 0.0015 * _noise(sphere, 26.0, rng)
    neck = 1 - shape.neck / (1 + np.exp(-(height - 0.2) / 0.13))
    ribs = 1 + shape.ribs_depth * (np.abs(np.cos(around_rad * shape.ribs / 2)) - 0.64)
    end = np.where(height > 0, shape.top, -shape.top / 3) * np.exp(-((width / 0.38) ** 2))
    width = width * (1 + shape.blunt) / (1 + shape.blunt * width) * neck * ribs * lumps
    stretch = shape.stretch * rng.uniform(0.92, 1.08)
    points = _revolve(width, (height - end) * lumps * stretch, around_rad)
    if shape.bend_rad:
        radius = np.ptp(points[2]) / shape.bend_rad
        x, angle_rad = points[0] + radius, points[2] / radius
        points = np.stack([x * np.cos(angle_rad), points[1], x * np.sin(angle_rad)])
    low, high = points.min(axis=(1, 2), keepdims=True), points.max(axis=(1, 2), keepdims=True)
    centred: Array = points - (low + high) / 2
    centred /= np.linalg.norm(centred, axis=0).max()
    return centred


def _revolve(width: Array, height: Array, around_rad: Array) -> Array:
    x, y = width * np.cos(around_rad), width * np.sin(around_rad)
    return np.stack([x, y, np.broadcast_to(height, x.shape)]).astype(np.float32)


def _stem(foot: Array, n_rows: int) -> tuple[Array, Array]:
    """Return the points and the colours of a stem, closed at its end by a bevel."""
    rise = np.linspace(0, 1, n_rows)[:, None]
    width = 0.05 * (1.25 - rise + 0.7 * rise**3) * np.minimum(1, (1 - rise) * 8)
    around_rad = np.linspace(0, 2 * math.pi, n_rows, endpoint=False)
    points = _revolve(width, 0.3 * rise - 0.04, around_rad)
    return points + _column(foot), (0.85 + 0.3 * rise + 0 * points) * _column(STEM_RGB)


def _normals(points: Array) -> Array:
    around = np.roll(points, -1, axis=2) - np.roll(points, 1, axis=2)
    normals: Array = np.cross(np.gradient(points, axis=1), around, axis=0)
    normals /= np.maximum(np.linalg.norm(normals, axis=0), 1e-12)
    return normals


def _skin(
    fruit: Fruit, points: Array, polar_rad: Array, around_rad: Array, rng: np.random.Generator
) -> Array:
    """Return the colours of the mesh."""
    tint = rng.normal(0, 0.025, 3)
    ground, pattern = (_column(np.add(rgb, tint)) for rgb in COLOURS[fruit.colour])
    rgb = _mix(ground, pattern, _pattern(fruit.texture, points, around_rad, rng))
    rgb = rgb * (1 + 0.06 * _noise(points, 3.0, rng) + 0.03 * _noise(points, 14.0, rng))
    rgb = _mix(rgb, _column(STEM_RGB), 0.8 * np.exp(-(((math.pi - polar_rad) / 0.11) ** 2)))
    if rng.random() < 0.25:  # a green leafy cap
        edge_rad = 0.42 + 0.2 * np.cos(around_rad * rng.integers(5, 8))
        rgb = _mix(rgb, _column(LEAF_RGB), _step(edge_rad - polar_rad, -0.03, 0.03))
    return np.clip(rgb, 0, 1)


def _pattern(texture: str, points: Array, around_rad: Array, rng: np.random.Generator) -> Array:
    """Return how much of the pattern's colour shows, in [0, 1], of shape (polar, around)."""
    if texture == "Striped":
        wobble = 0.5 * _noise(points, 5.0, rng)
        return _step(np.cos(around_rad * rng.integers(7, 12) + wobble), -0.1, 0.5)
    if texture == "Spotted":
        return _step(_noise(points, 18.0, rng), 0.8, 1.1)
    if texture == "Blushed":
        return 0.9 * _step(points[0] + 0.12 * _noise(points, 4.0, rng), -0.25, 0.5)
    if texture == "Marbled":
        return 1 - _step(np.abs(_noise(points, 6.0, rng)), 0.1, 0.45)
    return 0.4 * _step(_noise(points, 3.0, rng), -0.8, 1.6)


def _noise(points: Array, frequency: float, rng: np.random.Generator) -> Array:
    """Return smooth noise, about standard normal, of shape (polar, around)."""
    waves = rng.normal(size=(14, 3)).astype(np.float32)
    lengths = np.linalg.norm(waves, axis=1, keepdims=True)
    waves *= frequency * rng.uniform(0.6, 1.4, (14, 1)) / lengths
    phases_rad = rng.uniform(0, 2 * math.pi, 14)
    total: Array = sum(
        np.sin(_product(wave, points) + float(phase_rad))
        for wave, phase_rad in zip(waves, phases_rad, strict=True)
    )
    return total * math.sqrt(2 / 14)


def _product(matrix: Array, vectors: Array) -> Array:
    # Not by BLAS, whose last bits, and so the pixels, differ from build to build.
    x, y, z = vectors.reshape(3, -1)
    product: Array = matrix[..., :1] * x + matrix[..., 1:2] * y + matrix[..., 2:] * z
    return product.reshape(matrix.shape[:-1] + vectors.shape[1:])


def _column(values: npt.ArrayLike) -> Array:
    return np.asarray(values, np.float32).reshape(3, 1, 1)


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
