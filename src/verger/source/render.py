"""Photos of imaginary fruit, rendered here so that ``verger demo`` needs no download.

The set has the layout and the look of Fruits-360: one folder per class, one solid object on
pure white, one photo per rotation step. Every object is a solid of revolution that is ribbed,
bent, dimpled or knobbed, with a procedural skin. A class follows from ``(seed, index)`` alone.

Object space has its axis of revolution along z, the stem at +z. Camera space has x to the
right, y up and z towards the viewer. Meshes are float32 of shape (3, polar, around), where 3 are
x, y, z or red, green, blue; colours are in [0, 1] until a photo is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from verger.errors import ConfigError, OutputError

Array: TypeAlias = npt.NDArray[np.float32]
Rgb: TypeAlias = tuple[float, float, float]

SUPERSAMPLE = 2
FILL = 0.92
JPEG_QUALITY = 90
LIGHT = np.array([-0.42, 0.55, 0.72], np.float32)
HALFWAY = np.array([-0.24, 0.31, 0.92], np.float32)
STEM_RGB: Rgb = (0.36, 0.29, 0.16)
LEAF_RGB: Rgb = (0.33, 0.45, 0.18)


@dataclass(frozen=True)
class Shape:
    """Profile of a solid of revolution and what breaks its symmetry.

    Lengths are in units of the equatorial radius. A positive ``top`` or ``bottom`` is a
    dimple and a negative one a tip; a positive ``ribs_depth`` gives round ribs with sharp
    grooves and a negative one sharp ridges with round valleys. The axis of the object leans
    by ``tilt_rad`` from the vertical, about which it turns, and the camera looks down on it by
    ``elevation_rad``.
    """

    name: str
    stretch: float = 1.0
    blunt: float = 0.0
    taper: float = 0.0
    neck: float = 0.0
    waist: float = 0.0
    top: float = 0.0
    bottom: float = 0.0
    ribs: int = 1
    ribs_depth: float = 0.0
    knobs: float = 0.0
    bend_rad: float = 0.0
    tilt_rad: float = 0.6
    elevation_rad: float = 0.55


@dataclass(frozen=True)
class Colour:
    """Ground colour of a skin and the colour of its pattern."""

    name: str
    ground: Rgb
    pattern: Rgb


@dataclass(frozen=True)
class Kind:
    """Everything that the look of one class follows from.

    Attributes
    ----------
    name : str
        Plain description of the look, usable as the name of a folder on any system.
    shape : Shape
    colour : Colour
    texture : str
        Empty for a plain skin.
    seed, index : int
        Key of the random numbers that set this class apart from others of the same shape.
    """

    name: str
    shape: Shape
    colour: Colour
    texture: str
    seed: int
    index: int


@dataclass(frozen=True)
class _Surface:
    """Vertices of one object, each float32 of shape (3, vertex), and how it is held and shines."""

    points: Array
    normals: Array
    rgb: Array
    gloss: float
    tilt_rad: float
    elevation_rad: float
    start_rad: float


SHAPES = (
    Shape("Round", top=0.2, bottom=0.06),
    Shape("Flat", stretch=0.62, top=0.3, bottom=0.2, tilt_rad=0.45),
    Shape("Oval", stretch=1.4, top=0.03, tilt_rad=0.4, elevation_rad=0.4),
    Shape("Long", stretch=2.5, blunt=0.5, tilt_rad=0.4, elevation_rad=0.4),
    Shape(
        "Bent",
        stretch=3.2,
        blunt=0.5,
        top=-0.12,
        bottom=-0.08,
        bend_rad=1.5,
        tilt_rad=1.35,
        elevation_rad=1.0,
    ),
    Shape("Pear-shaped", stretch=1.35, neck=0.52, bottom=0.06, tilt_rad=0.4, elevation_rad=0.4),
    Shape(
        "Heart-shaped",
        stretch=1.1,
        taper=-0.4,
        top=0.4,
        bottom=-0.15,
        ribs=2,
        ribs_depth=0.3,
        tilt_rad=0.35,
        elevation_rad=0.4,
    ),
    Shape("Pointed", stretch=1.2, top=-0.24, bottom=-0.3, tilt_rad=0.5, elevation_rad=0.4),
    Shape(
        "Waisted", stretch=1.9, blunt=0.35, waist=0.42, taper=0.12, tilt_rad=1.2, elevation_rad=0.9
    ),
    Shape("Ribbed", stretch=0.78, top=0.26, bottom=0.2, ribs=9, ribs_depth=0.3, tilt_rad=0.5),
    Shape("Star-shaped", stretch=1.5, blunt=0.2, ribs=5, ribs_depth=-0.75, tilt_rad=0.7),
    Shape(
        "Lobed",
        stretch=1.15,
        blunt=0.6,
        taper=-0.16,
        top=0.22,
        bottom=0.15,
        ribs=4,
        ribs_depth=0.3,
        tilt_rad=0.5,
    ),
    Shape("Knobbly", stretch=1.1, knobs=0.13),
)
COLOURS = (
    Colour("Red", (0.80, 0.12, 0.13), (0.97, 0.80, 0.36)),
    Colour("Orange", (0.95, 0.53, 0.10), (0.76, 0.24, 0.08)),
    Colour("Yellow", (0.96, 0.83, 0.22), (0.86, 0.42, 0.12)),
    Colour("Green", (0.29, 0.52, 0.17), (0.72, 0.80, 0.36)),
    Colour("Pale Green", (0.71, 0.82, 0.40), (0.30, 0.48, 0.16)),
    Colour("Purple", (0.42, 0.16, 0.44), (0.77, 0.56, 0.74)),
    Colour("Brown", (0.52, 0.35, 0.21), (0.83, 0.69, 0.47)),
    Colour("Rosé", (0.94, 0.54, 0.58), (0.72, 0.13, 0.27)),
    Colour("Crème", (0.94, 0.87, 0.69), (0.66, 0.47, 0.28)),
    Colour("Blue", (0.22, 0.27, 0.52), (0.62, 0.68, 0.84)),
    Colour("Maroon", (0.42, 0.07, 0.15), (0.83, 0.35, 0.30)),
)
TEXTURES = ("", "Striped", "Spotted", "Speckled", "Blushed", "Marbled", "Tipped")


def make_kind(index: int, *, seed: int = 0) -> Kind:
    """Describe one class.

    Parameters
    ----------
    index : int
        Number of the class, from 0.
    seed : int
        From 0. Shuffles which shape meets which colour, and every detail.

    Returns
    -------
    Kind
        With a name that no other index has under the same seed.

    Raises
    ------
    ConfigError
        A number is out of bounds.
    """
    _check_bounds("index", index, 0)
    _check_bounds("seed", seed, 0)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    orders = [rng.permutation(len(options)) for options in (SHAPES, COLOURS, TEXTURES)]
    # The numbers of shapes, colours and textures have no common factor, so that by the Chinese
    # remainder theorem no combination comes twice before all have come, and neighbours differ
    # in all three.
    shape_at, colour_at, texture_at = (order[index % len(order)] for order in orders)
    shape, colour, texture = SHAPES[shape_at], COLOURS[colour_at], TEXTURES[texture_at]
    lap = index // (len(SHAPES) * len(COLOURS) * len(TEXTURES))
    words = (shape.name, colour.name, texture, str(lap + 1) if lap else "")
    return Kind(" ".join(filter(None, words)), shape, colour, texture, seed, index)


def render_dataset(
    folder: Path, *, n_classes: int = 30, per_class: int = 10, seed: int = 0, size: int = 100
) -> list[Path]:
    """Render a class-per-folder data set of objects turning on a white ground.

    Parameters
    ----------
    folder : Path
        Made if it is missing. Photos of the same name are overwritten, others are kept.
    n_classes : int
        Number of classes, from 1.
    per_class : int
        Number of rotation steps per class, from 1 to 360.
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
    for index in range(n_classes):
        kind = make_kind(index, seed=seed)
        for step in range(per_class):
            angle_deg = step * 360 // per_class
            photo = render_photo(kind, math.radians(angle_deg), size=size)
            paths.append(_save(photo, folder / kind.name / f"{angle_deg}_{size}.jpg"))
    return sorted(paths)


def render_photo(kind: Kind, angle_rad: float, *, size: int = 100) -> npt.NDArray[np.uint8]:
    """Render one photo of a class.

    Parameters
    ----------
    kind : Kind
        From `make_kind`.
    angle_rad : float
        How far the object has turned, in radians.
    size : int
        Height and width in pixels.

    Returns
    -------
    ndarray of uint8, shape (size, size, 3)
        RGB with axes (height, width, channel), pure white around the object.
    """
    surface = _surface(kind, size)
    turn = _turn(surface, angle_rad)
    grid = size * SUPERSAMPLE
    points = np.stack([_along(axis, surface.points) for axis in turn])
    visible = _visible(points, _along(turn[2], surface.normals), grid)
    hit = visible >= 0
    image = np.ones((grid, grid, 3), np.float32)
    image[hit] = _shade(surface, visible[hit], turn)
    pixels = np.round(image * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).reduce(SUPERSAMPLE))


def _check_bounds(name: str, value: int, least: int, most: int | None = None) -> None:
    if value < least:
        raise ConfigError(f"{name}={value} must be at least {least}")
    if most is not None and value > most:
        raise ConfigError(f"{name}={value} must be at most {most}")


def _save(photo: npt.NDArray[np.uint8], path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo).save(path, quality=JPEG_QUALITY)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    return path


def _turn(surface: _Surface, angle_rad: float) -> Array:
    """Return the (3, 3) rotation from object space to camera space."""
    # The object is set upright, leans, turns about the vertical and is then seen from above.
    lean = _about_x(surface.tilt_rad - math.pi / 2)
    turn = _about_x(surface.elevation_rad) @ _about_y(angle_rad + surface.start_rad) @ lean
    return turn.astype(np.float32)


def _visible(points: Array, facing: Array, grid: int) -> npt.NDArray[np.int64]:
    """Return the vertex seen at each cell of a (grid, grid) raster, -1 where there is none."""
    low, high = points[:2].min(axis=1), points[:2].max(axis=1)
    front = np.flatnonzero(facing > 0)
    # Far to near: of several values assigned to one cell, NumPy keeps the last. Sixteen bits of
    # depth are enough to sort by, and NumPy sorts such integers in linear time.
    depth_steps = (points[2, front] * 20_000).astype(np.int16)
    front = front[np.argsort(depth_steps, kind="stable")]
    scale = FILL * grid / (high - low).max()
    x, y = (points[:2, front] - ((low + high) / 2)[:, None]) * scale + grid / 2
    ids = np.full((grid, grid), -1, np.int64)
    ids[grid - 1 - y.astype(np.int64), x.astype(np.int64)] = front
    depth = np.where(ids < 0, np.float32(-9), points[2, ids])
    # Where the mesh is stretched it misses single cells: one then sees what lies far behind.
    for axis in (0, 1):
        before, after = np.roll(depth, 1, axis), np.roll(depth, -1, axis)
        hole = depth < np.minimum(before, after) - 0.08
        ids, depth = np.where(hole, np.roll(ids, 1, axis), ids), np.where(hole, before, depth)
    return ids


def _shade(surface: _Surface, vertices: npt.NDArray[np.int64], turn: Array) -> Array:
    """Return RGB in [0, 1], float32 of shape (len(vertices), 3)."""
    seen = surface.normals[:, vertices]
    normals = np.stack([_along(axis, seen) for axis in turn])
    # A lamp in a tent: the light wraps around the object, and the rim is a little darker.
    wrapped = np.clip((_along(LIGHT, normals) + 0.35) / 1.35, 0, 1)
    rim = 0.8 + 0.2 * np.sqrt(np.clip(normals[2], 0, 1))
    diffuse = (0.42 + 0.66 * wrapped) * rim
    shine = surface.gloss * np.clip(_along(HALFWAY, normals), 0, 1) ** 28
    lit: Array = surface.rgb[:, vertices] * diffuse + shine
    return np.clip(lit, 0, 1).T


# A class is rendered photo by photo, so that one surface is all that is ever asked for again.
@lru_cache(maxsize=1)
def _surface(kind: Kind, size: int) -> _Surface:
    rng = np.random.default_rng(np.random.SeedSequence(kind.seed, spawn_key=(1, kind.index)))
    # About one vertex per raster cell along a meridian and around the equator; ribs and knobs
    # make the way around longer.
    n_polar = round(1.5 * size * SUPERSAMPLE)
    detour = 1 + abs(kind.shape.ribs_depth) + 2 * kind.shape.knobs
    polar_rad, around_rad = _mesh(n_polar, round(2 * n_polar * detour))
    points = _body(kind.shape, polar_rad, around_rad, rng)
    rgb = _skin(kind, points, polar_rad, around_rad, rng)
    parts = [(points, rgb)]
    if rng.random() < 0.6 and kind.shape.top >= 0:
        parts.append(_stem(points[:, 0].mean(axis=1), n_polar // 4, rng))
    return _Surface(
        points=_flat(part for part, _ in parts),
        normals=_flat(_normals(part) for part, _ in parts),
        rgb=_flat(colours for _, colours in parts),
        gloss=rng.uniform(0.04, 0.34),
        tilt_rad=kind.shape.tilt_rad + rng.uniform(-0.12, 0.12),
        elevation_rad=kind.shape.elevation_rad + rng.uniform(-0.12, 0.12),
        start_rad=rng.uniform(0, 2 * math.pi),
    )


def _flat(meshes: Iterable[Array]) -> Array:
    return np.concatenate([mesh.reshape(3, -1) for mesh in meshes], axis=1)


def _mesh(n_polar: int, n_around: int) -> tuple[Array, Array]:
    # Half a step off the poles, where a row would have no direction to take a normal from.
    polar_rad = (np.arange(n_polar, dtype=np.float32) + 0.5) * np.float32(math.pi / n_polar)
    around_rad = np.arange(n_around, dtype=np.float32) * np.float32(2 * math.pi / n_around)
    return polar_rad[:, None], around_rad[None, :]


def _body(shape: Shape, polar_rad: Array, around_rad: Array, rng: np.random.Generator) -> Array:
    """Return the points of the mesh, inside a ball of radius 1 about the origin."""
    height, width = np.cos(polar_rad), np.sin(polar_rad)
    profile = 1 - shape.taper * height - shape.waist * np.exp(-((height / 0.4) ** 2))
    profile = profile - shape.neck / (1 + np.exp(-(height - 0.2) / 0.13))
    ribs = np.abs(np.cos(around_rad * (shape.ribs / 2))) - 0.64
    profile = profile * (1 + shape.ribs_depth * ribs)
    ends = np.exp(-((width / 0.38) ** 2))
    height = height - ends * np.where(height > 0, shape.top, -shape.bottom)
    width = width * (1 + shape.blunt) / (1 + shape.blunt * width) * profile
    sphere = _join(np.sin(polar_rad), np.cos(polar_rad), around_rad)
    knobs = np.abs(_noise(sphere, 5.0, rng)) - 0.8
    lumps = 1 + 0.018 * _noise(sphere, 2.0, rng) + shape.knobs * knobs
    lumps += rng.uniform(0, 0.003) * _noise(sphere, 26.0, rng)
    stretch = shape.stretch * rng.uniform(0.92, 1.08)
    points = _bend(_join(width * lumps, height * lumps * stretch, around_rad), shape.bend_rad)
    low, high = points.min(axis=(1, 2), keepdims=True), points.max(axis=(1, 2), keepdims=True)
    centred: Array = (points - (low + high) / 2).astype(np.float32)
    reach: np.float32 = _length(centred).max()
    return centred / reach


def _join(width: Array, height: Array, around_rad: Array) -> Array:
    x, y = width * np.cos(around_rad), width * np.sin(around_rad)
    return np.stack([x, y, np.broadcast_to(height, x.shape)])


def _bend(points: Array, bend_rad: float) -> Array:
    if bend_rad == 0:
        return points
    radius = np.ptp(points[2]) / bend_rad
    angle_rad = points[2] / radius
    x = points[0] + radius
    return np.stack([x * np.cos(angle_rad), points[1], x * np.sin(angle_rad)])


def _stem(foot: Array, n_rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the points and the colours of a stem that leans as it rises."""
    rise, around_rad = np.linspace(0, 1, n_rows, dtype=np.float32)[:, None], _mesh(1, n_rows)[1]
    # The end is closed by a bevel, else one would look into the stem.
    bevel = np.minimum(1, (1 - rise) * 8)
    width = np.float32(rng.uniform(0.035, 0.06)) * (1.25 - rise + 0.7 * rise**3) * bevel
    points = _join(width, rise * np.float32(rng.uniform(0.2, 0.38)) - 0.04, around_rad)
    points[:2] += rise**2 * rng.uniform(-0.16, 0.16, (2, 1, 1))
    shades = 0.85 + 0.3 * rise + np.zeros_like(points)
    return points + _column(foot), shades * _column(STEM_RGB)


def _normals(points: Array) -> Array:
    down = np.gradient(points, axis=1)
    around = np.roll(points, -1, axis=2) - np.roll(points, 1, axis=2)
    normals = np.cross(down, around, axis=0)
    return (normals / np.maximum(_length(normals), 1e-12)).astype(np.float32)


def _skin(
    kind: Kind, points: Array, polar_rad: Array, around_rad: Array, rng: np.random.Generator
) -> Array:
    """Return the colours of the mesh."""
    tint = _column(rng.normal(0, 0.025, 3))
    ground, pattern = _column(kind.colour.ground) + tint, _column(kind.colour.pattern) + tint
    rgb = _mix(ground, pattern, _pattern(kind.texture, points, around_rad, rng))
    rgb = rgb * (1 + 0.06 * _noise(points, 3.0, rng) + 0.03 * _noise(points, 14.0, rng))
    # The blossom end is a small brown scar; the stem end has a green leafy cap on some.
    rgb = _mix(rgb, _column(STEM_RGB), 0.8 * np.exp(-(((math.pi - polar_rad) / 0.11) ** 2)))
    if rng.random() < 0.25:
        edge_rad = 0.42 + 0.2 * np.cos(around_rad * rng.integers(5, 8))
        rgb = _mix(rgb, _column(LEAF_RGB), _step(edge_rad - polar_rad, -0.03, 0.03))
    return np.clip(rgb, 0, 1).astype(np.float32)


def _pattern(texture: str, points: Array, around_rad: Array, rng: np.random.Generator) -> Array:
    """Return how much of the pattern's colour shows, in [0, 1], of shape (polar, around)."""
    size = np.abs(points).max(axis=(1, 2))
    if texture == "Striped":
        wobble = 0.5 * _noise(points, 5.0, rng)
        return _step(np.cos(around_rad * rng.integers(7, 12) + wobble), -0.1, 0.5)
    if texture == "Spotted":
        return _spots(points, rng)
    if texture == "Speckled":
        return _step(_noise(points, 45.0, rng), 0.8, 1.3)
    if texture == "Blushed":
        cheek = _along(_directions(1, rng)[0] / size, points)
        return 0.9 * _step(cheek + 0.12 * _noise(points, 4.0, rng), -0.25, 0.65)
    if texture == "Marbled":
        return 1 - _step(np.abs(_noise(points, 6.0, rng)), 0.1, 0.45)
    if texture == "Tipped":
        height = points[2] / size[2]
        return _step(height * rng.choice([-1, 1]) + 0.12 * _noise(points, 7.0, rng), 0.1, 0.6)
    return 0.4 * _step(_noise(points, 3.0, rng), -0.8, 1.6)


def _spots(points: Array, rng: np.random.Generator) -> Array:
    _, n_polar, n_around = points.shape
    # Uniform in the cosine of the polar angle, so that the poles are not crowded.
    rows = np.arccos(rng.uniform(-1, 1, 45)) / math.pi * n_polar
    columns = rng.uniform(0, n_around, rows.size)
    inside = np.full((n_polar, n_around), -1.0, np.float32)
    for centre in points[:, rows.astype(int), columns.astype(int)].T:
        gap = _length(points - _column(centre))
        np.maximum(inside, rng.uniform(0.07, 0.14) - gap, out=inside)
    return _step(inside, -0.02, 0.02)


def _noise(points: Array, frequency: float, rng: np.random.Generator) -> Array:
    """Return smooth noise, about standard normal, of shape (polar, around)."""
    n_waves = 14
    pitch = rng.uniform(0.6, 1.4, (n_waves, 1)).astype(np.float32) * frequency
    waves = _directions(n_waves, rng) * pitch
    total = np.zeros(points.shape[1:], np.float32)
    for wave, phase_rad in zip(waves, rng.uniform(0, 2 * math.pi, n_waves), strict=True):
        total += np.sin(_along(wave, points) + np.float32(phase_rad))
    return total * np.float32(math.sqrt(2 / n_waves))


def _directions(count: int, rng: np.random.Generator) -> Array:
    vectors = rng.normal(size=(3, count)).astype(np.float32)
    return (vectors / _length(vectors)).T


def _along(direction: Array, vectors: Array) -> Array:
    """Return the dot products of one vector with an array of them, (3,) with (3, ...)."""
    # Not by BLAS: for so thin a product its threads cost more than they bring, many times so on
    # a busy machine, and the last bits, hence the pixels, would differ from build to build.
    along: Array = direction[0] * vectors[0]
    along += direction[1] * vectors[1]
    along += direction[2] * vectors[2]
    return along


def _length(vectors: Array) -> Array:
    lengths: Array = np.linalg.norm(vectors, axis=0)
    return lengths


def _column(values: npt.ArrayLike) -> Array:
    return np.asarray(values, np.float32).reshape(3, 1, 1)


def _mix(under: Array, over: Array, amount: Array) -> Array:
    mixed: Array = under + amount * (over - under)
    return mixed


def _step(values: Array, low: float, high: float) -> Array:
    ramp: Array = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    return ramp * ramp * (3 - 2 * ramp)


def _about_x(angle_rad: float) -> npt.NDArray[np.float64]:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def _about_y(angle_rad: float) -> npt.NDArray[np.float64]:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
