"""Paint the two pictures the examples use: `content.jpg` and `style.jpg`.

The content is a lake village at dusk: a church and houses with lit windows under layered mountains, their
reflection in rippled water, a sailing boat, and cypresses in the foreground. The style is an oil painting of
a sun over a poppy field, laid stroke by stroke along a flow field, from broad strokes to small ones, and lit
as thick paint is. Both come from fixed seeds with NumPy and Pillow alone.

    python examples/make_images.py [FOLDER]

writes both files into FOLDER (by default the folder of this script) within some ten seconds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter

Floats = NDArray[np.floating[Any]]
Points = list[tuple[float, float]]
Draw = ImageDraw.ImageDraw


class Range(NamedTuple):
    """A row of mountains: its skyline at even steps from the left, its colours, and where snow begins."""

    skyline: list[int]
    shade: str
    light: str
    snowline: int


class Eddy(NamedTuple):
    """A whirl of the painted wind: its centre, its radius, and how fast and which way it turns."""

    x: float
    y: float
    radius: float
    spin: float


class Layer(NamedTuple):
    """A pass of the brush: the size of its strokes in pixels, and how often they cover the canvas."""

    width: float
    length: float
    cover: float


# Both pictures are painted at twice their size and reduced, which smooths every edge.
WIDTH, HEIGHT, STYLE_HEIGHT = 2 * 768, 2 * 576, 2 * 608
WATERLINE, BOAT_X, BOAT_Y = 730, 850, 892
SUN_X, SUN_Y = 1010, 470
LAMP = "#ffc452"
RANGES = [
    Range([330, 280, 256, 300, 310, 180, 250, 360, 430, 480, 520, 560, 470, 390, 310, 350, 310],
          "#6a689e", "#f6b49a", 350),
    Range([360, 420, 480, 474, 470, 515, 560, 596, 628, 642, 648, 650, 590, 525, 490, 475, 520],
          "#3e4276", "#a2667a", 0),
    Range([480, 524, 560, 592, 610, 630, 650, 670, 690, 696, 704, 690, 662, 625, 590, 565, 540],
          "#182850", "#3c3a5c", 0),
]  # fmt: skip
NAVY, ULTRAMARINE, COBALT, PALE = "#10183a", "#1c3476", "#3468ac", "#8eb8cc"
CREAM, YELLOW, OCHRE, VERMILION = "#f6eac4", "#ecba44", "#b27026", "#ce4224"
PAINTS = (NAVY, ULTRAMARINE, COBALT, PALE, CREAM, YELLOW, OCHRE, VERMILION)
DISC = Eddy(1070, 360, 250, 2.4)
EDDIES = [DISC, Eddy(430, 300, 210, -2.2), Eddy(740, 560, 120, 1.5), Eddy(120, 600, 150, 1.4),
          Eddy(90, 90, 150, 1.4), Eddy(1400, 640, 130, -1.5), Eddy(760, 90, 120, -1.3),
          Eddy(1440, 120, 140, -1.6)]  # fmt: skip
SIZES = ((56, 320, 4), (34, 230, 1.7), (20, 150, 0.8), (12, 84, 0.45), (7, 46, 0.14))
LAYERS = [Layer(*size) for size in SIZES]


def unit(colour: str) -> Floats:
    """A colour as fractions of full light."""
    return np.array(ImageColor.getrgb(colour), np.float32) / 255


def mix(first: Floats, second: Floats | str, amount: Floats) -> Floats:
    """Blend a picture towards another, or towards a colour, by a map of amounts."""
    other = unit(second) if isinstance(second, str) else second
    return np.asarray(first + (other - first) * amount[..., None], np.float32)


def ease(low: float, high: float, value: Floats) -> Floats:
    """Rise smoothly from 0 at `low` to 1 at `high`."""
    part = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)


def ramp(position: Floats, stops: list[float], colours: list[str]) -> Floats:
    """Colours read off a gradient, one for each position."""
    table = np.stack([unit(colour) for colour in colours])
    return np.stack([np.interp(position, stops, channel) for channel in table.T], -1).astype(np.float32)


def noise(rng: Generator, height: int, width: int, cell: float, stretch: float, octaves: int) -> Floats:
    """Cloudy noise in 0..1: random grids, each twice as fine and half as strong as the last."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = cell / 2**octave
        grid = rng.random((int(height / size) + 3, int(width / (size * stretch)) + 3), np.float32)
        fine = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(fine) / 2**octave
    return np.asarray((total - total.min()) / np.ptp(total))


def sample(picture: Floats, rows: Floats, columns: Floats) -> Floats:
    """Read a picture at fractional places, holding its border beyond the edge."""
    rows, columns = np.clip(rows, 0, picture.shape[0] - 1.001), np.clip(columns, 0, picture.shape[1] - 1.001)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    shape = top.shape + (1,) * (picture.ndim - 2)
    down, across = (rows - top).reshape(shape), (columns - left).reshape(shape)
    upper = picture[top, left] * (1 - across) + picture[top, left + 1] * across
    lower = picture[top + 1, left] * (1 - across) + picture[top + 1, left + 1] * across
    return np.asarray(upper * (1 - down) + lower * down, np.float32)


def to_image(picture: Floats) -> Image.Image:
    """An 8-bit image of a picture of fractions."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def to_floats(image: Image.Image) -> Floats:
    """The fractions of an 8-bit image."""
    return np.asarray(image, np.float32) / 255


def paint_sky(rng: Generator, rows: Floats, columns: Floats, sunward: Floats) -> Floats:
    """Dusk: a gradient, the sun and its glow, and two decks of cloud lit from the sun's side."""
    dusk = ["#142254", "#3a5292", "#9882a4", "#f4a870", "#ffd68e"]
    picture = ramp(rows / WATERLINE, [0, 0.3, 0.52, 0.72, 1], dusk)
    away = np.hypot(columns - SUN_X, rows - SUN_Y)
    picture = mix(picture, "#ffce78", 0.75 * np.exp(-away / 200))
    for cell, stretch, level, lower in ((250, 3.2, 0.55, 0), (120, 4.2, 0.57, 60)):
        cloud = noise(rng, HEIGHT, WIDTH, cell, stretch, 7)
        beyond = sample(cloud, rows + 14, columns + sunward * 18)
        body = ease(level, level + 0.2, cloud) * ease(700, 380, rows + lower)
        lit = np.clip((cloud - beyond) * 6 + 0.15 + 0.75 * np.exp(-away / 420), 0, 1)
        picture = mix(picture, mix(unit("#464276"), "#ffb27c", lit), body * 0.9)
    return mix(picture, "#fffade", ease(54, 51, away))


def add_range(rng: Generator, picture: Floats, peaks: Range, rows: Floats, columns: Floats, sunward: Floats) -> Floats:
    """Lay one range over the picture: faces turned to the sun are warm, and the foot drowns in haze."""
    rough = noise(rng, 4, WIDTH, 110, 1, 6)[1] - 0.5
    crest = np.interp(columns[0], np.linspace(0, WIDTH, len(peaks.skyline)), peaks.skyline)
    depth = rows - crest - rough * 80
    # Spurs run down and away from the crest, so the noise that makes the faces is sheared by depth.
    folds = np.abs(noise(rng, HEIGHT, WIDTH, 230, 0.7, 5) - 0.5)
    spurs = sample(folds, depth * 0.7, columns - depth * 0.4 * sunward)
    facing = ease(-0.003, 0.003, np.gradient(spurs, axis=1) * -sunward)
    colour = mix(unit(peaks.shade), peaks.light, facing * 0.75)
    if peaks.snowline:
        snow = ease(40, -40, rows - peaks.snowline - (spurs - 0.2) * 500)
        colour = mix(colour, mix(unit("#969cce"), "#ffe8d6", facing), snow)
    foot = ease(0, WATERLINE - 250, rows - 250) ** 2
    colour = mix(colour, "#fabe8a", 0.18 + foot * 0.26)
    return mix(picture, colour, np.clip(depth + 0.5, 0, 1))


def shape(draw: Draw, x: float, foot: float, size: float, colour: str, points: Points) -> None:
    """Fill a polygon given by how far across and how high its corners stand, in units of `size`."""
    draw.polygon([(x + across * size, foot - rise * size) for across, rise in points], fill=colour)


def box(left: float, low: float, right: float, high: float) -> Points:
    """The corners of an upright rectangle."""
    return [(left, low), (right, low), (right, high), (left, high)]


def pine(draw: Draw, x: float, foot: float, tall: float, colour: str) -> None:
    """A conifer: five shrinking skirts."""
    for low, half in zip((0, 0.17, 0.34, 0.51, 0.68), (0.21, 0.175, 0.14, 0.105, 0.07), strict=True):
        shape(draw, x, foot, tall, colour, [(-half, low), (0, low + 0.36), (half, low)])


def house(draw: Draw, x: float, foot: float, size: float, roof: str) -> None:
    """A house seen from its corner: the gable end looks to the sun, the long side lies in shade."""
    shape(draw, x, foot, size, "#5c5072", box(-0.8, 0, 0, 0.52))
    shape(draw, x, foot, size, "#f0be8c", [(0, 0), (0.5, 0), (0.5, 0.52), (0.25, 0.92), (0, 0.52)])
    shape(draw, x, foot, size, roof, [(-0.86, 0.46), (0, 0.46), (0.25, 0.98), (-0.61, 0.98)])
    shape(draw, x, foot, size, roof, [(0.25, 0.98), (0.57, 0.46), (0.54, 0.42), (0.25, 0.88)])
    shape(draw, x, foot, size, "#603430", box(0.17, 0, 0.33, 0.31))
    for pane in (box(-0.64, 0.17, -0.5, 0.36), box(-0.3, 0.17, -0.16, 0.36), box(0.19, 0.44, 0.31, 0.58)):
        shape(draw, x, foot, size, LAMP, pane)


def church(draw: Draw, x: float, foot: float) -> None:
    """A nave with arched windows, and a tower with a tall spire, half lit and half in shade."""
    shape(draw, x, foot, 1, "#5e5274", box(-200, 0, -30, 96))
    shape(draw, x, foot, 1, "#703432", [(-212, 92), (-20, 92), (-20, 168), (-172, 168)])
    for left in (-178, -130, -82):
        shape(draw, x + left, foot, 1, LAMP, [(0, 26), (20, 26), (20, 60), (10, 74), (0, 60)])
    shape(draw, x, foot, 1, "#625476", box(-40, 0, 0, 250))
    shape(draw, x, foot, 1, "#ffdeb0", box(0, 0, 44, 250))
    shape(draw, x, foot, 1, "#583e4e", box(-46, 248, 50, 258))
    shape(draw, x, foot, 1, "#362a46", [(-46, 256), (2, 440), (2, 256)])
    shape(draw, x, foot, 1, "#944a3c", [(50, 256), (2, 440), (2, 256)])
    for part in (box(0, 436, 5, 476), box(-9, 459, 14, 464), box(13, 174, 31, 220), box(-29, 174, -13, 220)):
        shape(draw, x, foot, 1, "#3a2a42", part)
    draw.ellipse((x + 8, foot - 152, x + 36, foot - 124), fill="#fff6dc", outline="#603c38", width=4)
    shape(draw, x, foot, 1, "#603430", [(12, 0), (32, 0), (32, 40), (22, 56), (12, 40)])


def boat(draw: Draw, x: float, y: float) -> None:
    """A small sailing boat."""
    shape(draw, x, y, 120, "#3c1e28", [(-0.52, 0.16), (0.62, 0.2), (0.42, -0.06), (-0.4, -0.06)])
    shape(draw, x, y, 120, "#ce5434", [(-0.52, 0.16), (0.62, 0.2), (0.59, 0.14), (-0.49, 0.1)])
    shape(draw, x, y, 120, "#32222c", box(0, 0.1, 0.04, 1.5))
    shape(draw, x, y, 120, "#ffecc8", [(0.06, 0.28), (0.06, 1.46), (0.62, 0.32)])
    shape(draw, x, y, 120, "#e2a88a", [(-0.02, 0.28), (-0.02, 1.3), (-0.42, 0.3)])


def add_village(rng: Generator, picture: Floats) -> Floats:
    """The near shore: a wooded slope, the church, the houses, and the glow of the lamps."""
    image = to_image(picture)
    draw = ImageDraw.Draw(image)
    columns = np.arange(0, 804, 4)
    slope = WATERLINE - 6 - 150 * np.clip(1 - columns / 760, 0, 1) ** 1.2 + 6 * np.sin(columns / 37)
    for x, y in zip(columns[::3], slope[::3], strict=True):
        pine(draw, x + rng.uniform(-8, 8), y + 14, rng.uniform(50, 120) * (1 - x / 1000), "#182c3a")
    crest = [*zip(columns.tolist(), slope.tolist(), strict=True)]
    draw.polygon([*crest, (800, WATERLINE), (0, WATERLINE)], fill="#28383a")
    far = ((90, 650, 84), (250, 664, 76), (60, 716, 104))
    near = ((190, 722, 96), (560, 726, 92), (668, 727, 78), (745, 727, 58))
    for number, (x, foot, size) in enumerate(far + near):
        house(draw, x, foot, size, ("#7e3a32", "#964c36", "#4c344c")[number % 3])
    church(draw, 420, 716)
    for x in (8, 118, 250, 486, 602, 790):
        pine(draw, x, WATERLINE - 2, rng.uniform(70, 100), "#162c34")
    draw.rectangle((0, WATERLINE - 5, 800, WATERLINE + 2), fill="#2c2838")
    # Nothing else has the lamps' exact colour, so it tells which panes no nearer wall has covered.
    lit = Image.fromarray(np.all(np.asarray(image) == ImageColor.getrgb(LAMP), -1).astype(np.uint8) * 255)
    glow = to_floats(lit.filter(ImageFilter.GaussianBlur(12)))[..., None] * unit("#ff821e")
    return np.asarray(1 - (1 - to_floats(image)) * (1 - glow * 0.7))


def paint_water(rng: Generator, shore: Floats, rows: Floats, columns: Floats) -> Floats:
    """Mirror the shore in the lake; ripples shift the mirror image more the nearer they are."""
    mirror = to_image(shore[:WATERLINE])
    boat(ImageDraw.Draw(mirror), BOAT_X, 2 * WATERLINE - BOAT_Y)
    depth = rows - WATERLINE
    # Dividing by depth puts the ripples in perspective: broad at our feet, fine at the far shore.
    near = depth + 26
    ripples = noise(rng, 900, 900, 36, 1, 3)
    wave = sample(ripples, 26000 / near % 899, 450 + (columns - WIDTH / 2) * 74 / near) - 0.5
    shift = wave * (6 + depth * 0.2)
    picture = sample(to_floats(mirror)[::-1], depth + shift, columns + shift * 0.35)
    path = np.exp(-(((columns - SUN_X) / (60 + depth * 0.3)) ** 2))
    picture = mix(picture, "#162c5c", (ease(0, 520, depth) * 0.5 + 0.16) * (1 - path * 0.8))
    picture = mix(picture, "#6484c4", ease(0.06, 0.2, wave) * 0.38)
    picture = mix(picture, "#142250", ease(-0.08, -0.24, wave) * 0.4)
    return mix(picture, "#ffd688", ease(-0.04, 0.08, wave) * path * (1 - depth / 800))


def cypress(rng: Generator, draw: Draw, x: float, foot: float, tall: float) -> None:
    """A cypress as a flame of upward licks, warmer on the side that faces the sun."""
    for rise in np.repeat(np.linspace(0, 1, int(tall * 1.1)), 3):
        half = tall * 0.125 * np.sin(np.pi * (0.04 + 0.96 * rise) ** 0.62) ** 0.9
        side, lick = rng.uniform(-1, 1), tall * rng.uniform(0.05, 0.11)
        left, low = x + side * half, foot - rise * tall * 0.9
        warm, green = max(0, -side - 0.45) * rng.uniform(0.4, 1.5), rng.uniform(0, 1) ** 2
        colour = np.array([12, 26, 40]) + green * np.array([24, 44, 16]) + warm * np.array([150, 84, 14])
        tip = (left + side * half * 0.25 + rng.normal(0, 4), low - lick)
        draw.polygon([(left - 6, low), (left + 6, low), tip], fill=tuple(colour.astype(int).tolist()))


def add_foreground(rng: Generator, picture: Floats) -> Image.Image:
    """The boat, and the bank we stand on with its cypresses and grass."""
    image = to_image(picture)
    draw = ImageDraw.Draw(image)
    boat(draw, BOAT_X, BOAT_Y)
    columns = np.arange(0, WIDTH + 4, 4)
    bank = HEIGHT - 36 - 170 * np.clip((columns - 820) / 700, 0, 1) ** 1.3 - 10 * np.sin(columns / 90)
    crest = [*zip(columns.tolist(), bank.tolist(), strict=True)]
    draw.polygon([*crest, (WIDTH, HEIGHT), (0, HEIGHT)], fill="#121c26")
    for x, tall in ((1270, 620), (1420, 880), (1510, 560)):
        cypress(rng, draw, x, float(np.interp(x, columns, bank)) + 40, tall)
    for near in np.linspace(0, 1, 3600):
        root, lean, length = rng.uniform(0, WIDTH), rng.normal(4, 9), rng.uniform(16, 46)
        soil = float(np.interp(root, columns, bank)) + near**1.4 * 230
        colour = np.array([18, 46, 48]) + rng.uniform(0, 1) ** 4 * np.array([190, 116, 20])
        blade = [(root, soil), (root + lean * 0.3, soil - length * 0.6), (root + lean, soil - length)]
        draw.line(blade, fill=tuple((colour * (1 - near * 0.4)).astype(int).tolist()), width=3)
    return image


def make_content(rng: Generator) -> Image.Image:
    """The lake village at dusk."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    # Which way the sun lies, -1 to 1; it turns gently, since a sudden turn would show as a seam.
    sunward = np.tanh((SUN_X - columns) / 160)
    picture = paint_sky(rng, rows, columns, sunward)
    for peaks in RANGES:
        picture = add_range(rng, picture, peaks, rows, columns, sunward)
    picture = add_village(rng, picture)
    picture[WATERLINE:] = paint_water(rng, picture, rows[WATERLINE:], columns[WATERLINE:])
    return add_foreground(rng, picture)


def make_flow(rng: Generator, rows: Floats, columns: Floats, hills: Floats, field: Floats) -> Floats:
    """The brush's direction, down and across: eddies in the sky, slopes, furrows that meet far off."""
    down, across = 0.22 * np.sin(columns / 210 + rows / 160), np.full_like(rows, 0.5)
    for eddy in EDDIES:
        right, below = columns - eddy.x, rows - eddy.y
        away = np.hypot(right, below) + 1
        pull = eddy.spin * np.exp(-((away / eddy.radius) ** 2) * 0.8) / away
        # A little of the motion is inwards, which winds the circles into spirals.
        inward = 0.22 * np.abs(pull)
        down, across = down + pull * right - inward * below, across - pull * below - inward * right
    swell = noise(rng, STYLE_HEIGHT, WIDTH, 260, 1.4, 2) - 0.5
    slope = np.arctan(-np.gradient(hills, axis=1)) + swell * 0.7
    furrow = np.arctan2(700 - rows, 900 - columns) + swell * 1.3
    for cover, angle in ((ease(-120, -40, hills), slope), (ease(-30, 10, field), furrow)):
        down, across = down + (np.sin(angle) - down) * cover, across + (np.cos(angle) - across) * cover
    return np.stack([down, across], -1) / (np.hypot(down, across) + 1e-6)[..., None]


def draw_streaks(rng: Generator, flow: Floats) -> Floats:
    """Noise averaged along the flow, stretched to 0..1: the bands of light and dark that the wind draws."""
    down, across = flow[::4, ::4, 0], flow[::4, ::4, 1]
    grain = noise(rng, STYLE_HEIGHT // 4, WIDTH // 4, 22, 1, 2)
    rows, columns = np.mgrid[: down.shape[0], : down.shape[1]].astype(np.float32)
    total = np.zeros_like(grain)
    for _ in range(46):
        total += sample(grain, rows, columns)
        below, right = sample(down, rows, columns), sample(across, rows, columns)
        rows, columns = rows + below * 1.6, columns + right * 1.6
    low, high = np.percentile(total, [3, 97])
    bands = Image.fromarray(np.clip((total - low) / (high - low), 0, 1))
    return np.asarray(bands.resize((WIDTH, STYLE_HEIGHT), Image.Resampling.BICUBIC))


def paint_subject(rng: Generator, flow: Floats, rows: Floats, columns: Floats, hills: Floats, field: Floats) -> Floats:
    """What the brush sets out to paint: a sun in a turning sky, blue hills, and a field with poppies."""
    bands = draw_streaks(rng, flow)
    away = np.hypot(columns - DISC.x, rows - DISC.y)
    light = bands * 0.62 + 0.5 * np.exp(-((away / 260) ** 2)) + 0.1 * rows / STYLE_HEIGHT
    for eddy in EDDIES[1:]:
        light = light + 0.3 * np.exp(-((np.hypot(columns - eddy.x, rows - eddy.y) / eddy.radius * 2) ** 2))
    blues = [NAVY, ULTRAMARINE, COBALT, PALE, CREAM, YELLOW]
    picture = ramp(light, [0.05, 0.24, 0.44, 0.64, 0.82, 1.05], blues)
    picture = mix(picture, YELLOW, ease(120, 96, away))
    picture = mix(picture, VERMILION, ease(16, 6, np.abs(away - 124)) * 0.9)
    picture = mix(picture, CREAM, ease(62, 48, away))
    far, near = hills + 40 - 40 * np.cos(columns / 170), hills - 30
    far_paints, near_paints = [PALE, COBALT, ULTRAMARINE, COBALT], [OCHRE, OCHRE, NAVY, ULTRAMARINE]
    for depth, paints in ((far, far_paints), (near, near_paints)):
        slopes = ramp(depth / 80 + bands * 0.3, [0.15, 0.4, 0.7, 1.3], paints)
        picture = mix(picture, slopes, ease(-3, 3, depth))
    furrows = bands + 0.15 * np.sin(columns / 90 + rows / 60)
    wheat = ramp(furrows, [-0.16, 0.18, 0.56, 1], [ULTRAMARINE, OCHRE, YELLOW, CREAM])
    poppies = noise(rng, STYLE_HEIGHT, WIDTH, 60, 1.3, 2) + 0.1 * ease(920, 1200, rows)
    wheat = mix(wheat, VERMILION, ease(0.77, 0.8, poppies))
    return mix(picture, wheat, ease(-3, 3, field))


def look(picture: Floats, place: Floats) -> Floats:
    """Read a picture of the style's size at the pixels nearest to the places (rows, columns)."""
    row, column = np.clip(place, 0, np.array([[STYLE_HEIGHT - 1], [WIDTH - 1]])).astype(int)
    return np.asarray(picture[row, column])


def trace(flow: Floats, place: Floats, stride: Floats, steps: int) -> tuple[Floats, Floats]:
    """Follow the flow through each middle: the places passed and the directions, (2, strokes, steps)."""
    path, turns = [], []
    for _ in range(steps // 2):
        place = place - look(flow, place).T * stride
    for _ in range(steps):
        path.append(place)
        turns.append(look(flow, place).T)
        place = place + turns[-1] * stride
    return np.stack(path, -1).astype(np.float32), np.stack(turns, -1).astype(np.float32)


def load_brush(rng: Generator, seen: Floats, load: Floats) -> Floats:
    """The colour of every hair: the paint nearest to what the painter sees, streaked with a second one."""
    count, paints = len(seen), np.stack([unit(paint) for paint in PAINTS])
    wanted = seen[:, None] + rng.normal(0, 1, (count, 2, 3)) * np.array([[0.054], [0.144]])
    chosen = paints[np.argmin(((wanted[:, :, None] - paints) ** 2).sum(-1), -1)]
    base = chosen[:, 0] * 0.65 + seen * 0.35 + rng.normal(0, 0.045, (count, 1))
    base = base + rng.normal(0, 0.02, (count, 3))
    second = np.clip(load * 1.8 - 0.85, 0, 1)[..., None] * 0.6
    return np.asarray(base[:, None] * (1 - second) + chosen[:, 1:] * second + (load[..., None] - 0.5) * 0.1)


def lay(rng: Generator, canvas: Floats, relief: Floats, picture: Floats, flow: Floats, layer: Layer) -> None:
    """Lay one pass of strokes over the canvas, and the thickness of their paint over the relief."""
    edge = layer.length / 2  # strokes may lie off the canvas, so that its border is painted too
    high, wide = STYLE_HEIGHT + 2 * edge, WIDTH + 2 * edge
    steps, hairs = int(layer.length / 0.65), int(layer.width / 0.6)
    along, side = np.linspace(0, 1, steps, dtype=np.float32), np.linspace(-1, 1, hairs, dtype=np.float32)
    # A brush lands blunt and leaves thin; the paint piles up at the stroke's sides and where it ends.
    taper = np.minimum(1, (along * 9 + 0.25) ** 0.5) * np.minimum(1, ((1 - along) * 4 + 0.02) ** 0.6)
    ridge = 0.5 * np.abs(side) ** 3 + 0.5 * np.exp(-(((along - 0.9) / 0.06) ** 2))[:, None]
    for order in np.array_split(np.arange(layer.cover * high * wide / (layer.width * layer.length)), 32):
        count = len(order)
        # Multiples of two irrational numbers spread the strokes evenly, where chance would leave bare canvas.
        rows = order * 0.754877 % 1 * high - edge + rng.normal(0, layer.width / 2, count)
        columns = order * 0.569840 % 1 * wide - edge + rng.normal(0, layer.width / 2, count)
        stride = layer.length * rng.uniform(0.55, 1.15, count) / steps
        place = np.stack([rows, columns])
        path, turns = trace(flow, place, stride, steps)
        # Each hair carries its own load of paint, much like its neighbours'.
        load = 0.6 * noise(rng, count, hairs, 1, hairs / 8, 1) + 0.4 * rng.random((count, hairs))
        hue = load_brush(rng, look(picture, place), load)
        half = rng.uniform(0.6, 1.25, (count, 1, 1)) * taper[:, None] * layer.width / 2
        row = (path[0, ..., None] + turns[1, ..., None] * side * half).astype(np.int32)
        column = (path[1, ..., None] - turns[0, ..., None] * side * half).astype(np.int32)
        # A hair with little paint runs dry before the stroke ends.
        wet = load[:, None] + 0.75 > along[:, None] ** 2 * 1.25
        inside = (row >= 0) & (row < STYLE_HEIGHT) & (column >= 0) & (column < WIDTH)
        stroke, step, hair = np.nonzero(wet & inside)
        row, column = row[stroke, step, hair], column[stroke, step, hair]
        # Where strokes overlap, the later one wins, as it does on canvas.
        canvas[row, column] = hue[stroke, hair]
        relief[row, column] = (load[stroke, hair] * 0.8 + ridge[step, hair]) * layer.width**0.5


def make_style(rng: Generator) -> Image.Image:
    """The oil painting: strokes from broad to fine along the flow, then raking light over the thick paint."""
    rows, columns = np.mgrid[:STYLE_HEIGHT, :WIDTH].astype(np.float32)
    # How far each pixel lies below the top of the hills, and of the field.
    hills = rows - 790 + 60 * np.sin(columns / 250 + 0.6) + 26 * np.sin(columns / 97)
    field = rows - 900 + 26 * np.sin(columns / 330 + 2.4)
    flow = make_flow(rng, rows, columns, hills, field)
    picture = paint_subject(rng, flow, rows, columns, hills, field)
    canvas, relief = picture.copy(), np.zeros_like(rows)
    for layer in LAYERS:
        lay(rng, canvas, relief, picture, flow, layer)
    # Height differences towards the light, at the upper left; three distances show both hairs and edges.
    slope = np.sum([relief - np.roll(relief, (step, step), (0, 1)) for step in (1, 2, 3)], axis=0)
    lit = np.tanh(slope * 0.12)[..., None]
    return to_image(canvas * (1 + 0.3 * lit) + 0.07 * np.maximum(lit, 0))


def main() -> None:
    """Write both pictures into the folder named on the command line."""
    parser = argparse.ArgumentParser(description="Paint content.jpg and style.jpg.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "content": make_content(np.random.default_rng(7)),
        "style": make_style(np.random.default_rng(11)),
    }
    for name, picture in pictures.items():
        picture.reduce(2).save(folder / f"{name}.jpg", quality=90)


if __name__ == "__main__":
    main()
