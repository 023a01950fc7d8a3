"""The images of the built-in demo set.

Each shows up to twelve overlapping discs, triangles and stick figures on a textured background with unlabelled clutter.
The colours are shared by all categories, so only the segmentation tells them apart: easily where an object is large,
and by a few pixels where it is small. That makes the set a real, if small, detection problem, and one that gets harder
when the resolution is halved.

Everywhere: pixel coordinates with x to the right and y down, and pixel i covers the interval [i, i + 1).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

CATEGORY_IDS = {"disc": 1, "triangle": 4, "figure": 17}
KEYPOINTS = ("head", "left_hand", "right_hand", "left_foot", "right_foot", "hip", "neck")
SKELETON = ((1, 7), (7, 2), (7, 3), (7, 6), (6, 4), (6, 5))  # pairs of 1-based positions in KEYPOINTS, as in COCO

SHORTEST, LONGEST = 18.0, 120.0  # long side of an object before it is turned, pixels
SHORTEST_FIGURE = 28.0  # below this the limbs are thinner than a pixel
FEWEST_OBJECTS, MOST_OBJECTS = 3, 12
EMPTY_SHARE = 0.02
LEAST_VISIBLE, LEAST_AREA = 0.5, 20  # share of the whole object, and pixels, that must stay in view
LEAST_CONTRAST = 110.0  # distance in RGB (0 to 255 each) between a fill and what it covers
FINE = 4  # supersampling of everything that has an edge

Array = NDArray[np.float64]
Owner = NDArray[np.int64]  # (H, W): at each pixel the index of the object on top, or -1
Window = tuple[slice, slice]  # rows, columns


@dataclass
class DrawnObject:
    """A drawn object: category, area in pixels were nothing hidden, and keypoints (7, 2), or (0, 2), in pixels."""

    name: str
    whole_area: int
    keypoints: Array


def scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Array, Owner, list[DrawnObject]]:
    """One scene: its colours (H, W, 3) from 0 to 255, which object owns each pixel, and the objects."""
    canvas = _clutter(rng, _background(rng, size))
    owner = np.full((size[1], size[0]), -1)
    objects: list[DrawnObject] = []
    count = 0 if rng.random() < EMPTY_SHARE else int(rng.integers(FEWEST_OBJECTS, MOST_OBJECTS + 1))
    for _ in range(count):
        _add_object(rng, canvas, owner, objects)
    return canvas, owner, objects


def _add_object(rng: np.random.Generator, canvas: Array, owner: Owner, objects: list[DrawnObject]) -> None:
    """Draw one more object over `canvas` and `owner`, if a place is found that leaves enough of every object in view.

    So nothing is ever drawn that is too hidden to be labelled.
    """
    name = str(rng.choice(list(CATEGORY_IDS)))
    shortest = SHORTEST_FIGURE if name == "figure" else SHORTEST
    longest = min(LONGEST, 0.5 * min(owner.shape))
    # Log-uniform but for the last power, which leaves a little under half of the objects small in the sense of COCO.
    side = float(shortest * (longest / shortest) ** (rng.uniform() ** 0.6))
    pieces, keypoints = _shape(rng, name)
    # Everything may lean, but not turn over: left and right of a figure are told apart by where they are in the image.
    turn = _rotation(rng.uniform(-0.6, 0.6)) * side
    for _ in range(12):
        # Up to a fifth of the side may lie off the image.
        centre = rng.uniform(0.3 * side, np.array(owner.shape[::-1]) - 0.3 * side)
        stencil, left, top = _stencil([piece @ turn + centre for piece in pieces])
        cover = np.asarray(stencil.reduce(FINE)) / 255.0
        inside, clipped = _clip(left, top, cover.shape, owner.shape)
        whole_area = int((cover >= 0.5).sum())
        mask = cover[clipped] >= 0.5
        if _enough_in_view(owner, inside, mask, [*(o.whole_area for o in objects), whole_area]):
            under = canvas[inside][mask].mean(axis=0)
            colours = _surface(rng, stencil, side, under)[clipped]
            canvas[inside] += cover[clipped][..., None] * (colours - canvas[inside])
            owner[inside][mask] = len(objects)
            objects.append(DrawnObject(name, whole_area, keypoints @ turn + centre))
            return


def _enough_in_view(owner: Owner, inside: Window, mask: NDArray[np.bool_], whole_areas: list[int]) -> bool:
    """Whether all objects, with `mask` on top of `owner[inside]` as the last one, stay visible enough for a label."""
    after = owner.copy()
    after[inside][mask] = len(whole_areas) - 1
    seen = np.bincount(after.ravel() + 1, minlength=len(whole_areas) + 1)[1:]
    return bool((seen >= np.maximum(LEAST_AREA, LEAST_VISIBLE * np.array(whole_areas))).all())


def _clip(left: int, top: int, patch: tuple[int, ...], image: tuple[int, ...]) -> tuple[Window, Window]:
    """The part of a `patch` (h, w) at (left, top) that lies in an `image` (H, W): its place there, and in the patch."""
    y0, y1 = max(top, 0), min(top + patch[0], image[0])
    x0, x1 = max(left, 0), min(left + patch[1], image[1])
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def photograph(rng: np.random.Generator, canvas: Array) -> Image.Image:
    """The scene (H, W, 3) as a camera of varying quality sees it: a little blurred, then noisy."""
    sharp = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    blurred = sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))
    noisy = np.asarray(blurred) + rng.normal(0, rng.uniform(0, 7), canvas.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _shape(rng: np.random.Generator, name: str) -> tuple[list[Array], Array]:
    """A random shape of a category: polygons (n, 2) whose union it is, and its keypoints (7, 2), or (0, 2) for none.

    Both upright, centred on the origin and with a long side of 1.
    """
    keypoints = np.zeros((0, 2))
    if name == "figure":
        pieces, keypoints = _figure(rng)
    elif name == "disc":
        pieces = [_round(40) * [1, rng.uniform(0.75, 1)]]
    else:
        pieces = [np.array([[rng.uniform(-0.5, 0.5), -rng.uniform(0.8, 1.1)], [1.0, 0.7], [-1.0, 0.7]])]
    low, high = np.concatenate(pieces).min(axis=0), np.concatenate(pieces).max(axis=0)
    middle, side = (low + high) / 2, (high - low).max()
    return [(piece - middle) / side for piece in pieces], (keypoints - middle) / side


def _figure(rng: np.random.Generator) -> tuple[list[Array], Array]:
    """A person in a random pose, facing us, about 1 high: polygons (n, 2), and keypoints (7, 2) as in KEYPOINTS."""
    neck, hip = np.array([0.0, -0.24]), np.array([rng.uniform(-0.05, 0.05), 0.08])
    head = np.array([rng.uniform(-0.04, 0.04), -0.38])
    pieces = [_round(24) * 0.115 + head, _limb(head, neck, 0.05), _limb(neck, hip, 0.085)]
    ends: list[Array] = []
    arm, leg = (neck + np.array([0, 0.04]), 0.4, 2.6, 0.9, 0.17), (hip, 0.15, 0.8, 0.4, 0.21)
    for start, low, high, bend, length in (arm, leg):
        for side in (1, -1):  # the figure's left, then its right: it faces us, so its left is on our right
            angle = rng.uniform(low, high)  # from straight down, outwards
            joint = start + length * np.array([side * np.sin(angle), np.cos(angle)])
            angle += rng.uniform(-bend, bend)
            ends.append(joint + length * np.array([side * np.sin(angle), np.cos(angle)]))
            pieces += [_limb(start, joint, 0.052), _limb(joint, ends[-1], 0.046)]
    return pieces, np.array([head, *ends, hip, neck])


def _limb(start: Array, end: Array, radius: float) -> Array:
    """The segmentation (16, 2) of a stroke of the given radius with round ends."""
    along = np.arctan2(*(end - start)[::-1])
    cap = np.linspace(along - np.pi / 2, along + np.pi / 2, 8)
    arc = radius * np.stack([np.cos(cap), np.sin(cap)], axis=1)
    return np.concatenate([end + arc, start - arc])


def _round(count: int) -> Array:
    """`count` points (count, 2) evenly spaced on the unit circle."""
    angles = np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _rotation(angle: float) -> Array:
    """The (2, 2) matrix that turns row vectors by `angle` radians, clockwise as seen in an image."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _stencil(pieces: list[Array]) -> tuple[Image.Image, int, int]:
    """The union of polygons (n, 2) in image pixels: a grey image FINE times enlarged, and its left and top there."""
    points = np.concatenate(pieces)
    # A margin of one pixel, since a blur takes what is beyond the stencil to be like its border.
    left, top = np.floor(points.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(points.max(axis=0)).astype(int) + 1
    stencil = Image.new("L", ((right - left) * FINE, (bottom - top) * FINE))
    pen = ImageDraw.Draw(stencil)
    for piece in pieces:
        # The pen counts from pixel centres.
        pen.polygon([(x, y) for x, y in ((piece - [left, top]) * FINE - 0.5).round().tolist()], fill=255)
    return stencil, int(left), int(top)


def _surface(rng: np.random.Generator, stencil: Image.Image, side: float, under: Array) -> Array:
    """Colours (h, w, 3) for an object with this stencil, unlike `under`, the mean colour (3,) of what it covers."""
    candidates = rng.uniform(0, 255, (64, 3))  # at least 70% of all colours are far enough from any given one
    first, second, edge = candidates[np.linalg.norm(candidates - under, axis=1) >= LEAST_CONTRAST][:3]
    width, height = stencil.width // FINE, stencil.height // FINE
    # Fine patterns would hide the segmentation of a small object, and the segmentation is all there is to know it by.
    pattern = "plain" if side < 32 else rng.choice(["plain", "graded", "striped"], p=[0.4, 0.4, 0.2])
    along = _along(rng, width, height)
    mix = np.zeros((height, width))
    if pattern == "graded":
        mix = (along / side + 0.5).clip(0, 1)
    elif pattern == "striped":
        mix = np.floor(along / max(3.0, side * rng.uniform(0.08, 0.25))) % 2
    colours = first + mix[..., None] * (second - first)
    colours += rng.uniform(0, 12) * _noise(rng, width, height, 3.0)[..., None]
    if side >= 14 and rng.random() < 0.4:
        line = max(1.0, side * rng.uniform(0.015, 0.035))
        inner = stencil.filter(ImageFilter.BoxBlur(line * FINE)).point(lambda value: 255 * (value > 250))
        colours = edge + np.asarray(inner.reduce(FINE))[..., None] / 255 * (colours - edge)
    return np.asarray(colours)


def _along(rng: np.random.Generator, width: int, height: int) -> Array:
    """How far each pixel (height, width) lies from the middle, in pixels along a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.arange(width) - width / 2, np.arange(height) - height / 2
    return np.asarray(np.cos(angle) * x + np.sin(angle) * y[:, None])


def _noise(rng: np.random.Generator, width: int, height: int, cell: float) -> Array:
    """Smooth noise (height, width) from about -1 to 1 whose spots are about `cell` pixels large."""
    coarse = rng.uniform(-1, 1, (int(height / cell) + 2, int(width / cell) + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """A textured background (H, W, 3), 0 to 255: a gradient under patches, stripes and noise at several scales."""
    width, height = size
    base = rng.uniform(30, 225, 3)
    drift, patch = rng.normal(0, 30, 3), rng.normal(0, 24, 3)
    canvas = base + (_along(rng, width, height) / max(size))[..., None] * drift
    if rng.random() < 0.5:
        blobs = _noise(rng, width, height, rng.uniform(15, 60)) / rng.uniform(0.02, 0.6)
        canvas += blobs.clip(-1, 1)[..., None] * patch
    if rng.random() < 0.5:
        stripes = np.sin(_along(rng, width, height) * 2 * np.pi / rng.uniform(5, 50))
        canvas += stripes[..., None] * rng.normal(0, 9, 3)
    for cell in (1.5, 4, 10, 30):
        canvas += rng.uniform(0, 13) * _noise(rng, width, height, cell)[..., None]
    return np.asarray(canvas.clip(0, 255))


def _clutter(rng: np.random.Generator, canvas: Array) -> Array:
    """The canvas (H, W, 3) with thin lines, specks, crosses and rings on it, which are nothing to be found."""
    height, width = canvas.shape[:2]
    # Enlarging to the nearest pixel and averaging again leaves alone what is not drawn on.
    fine = Image.fromarray(canvas.astype(np.uint8)).resize((width * FINE, height * FINE), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(fine)
    for _ in range(int(rng.integers(0, 25))):
        x, y = rng.uniform(0, [width, height]) * FINE
        reach = rng.uniform(0.5, 6) * FINE
        dx, dy = reach * _rotation(rng.uniform(0, np.pi))[0]
        colour = tuple(rng.integers(0, 256, 3).tolist())
        thick = int(rng.integers(FINE // 2, FINE + 3))
        kind = rng.choice(["line", "cross", "ring"])
        if kind == "ring":  # a speck, where the line is as thick as the ring
            pen.ellipse([x - reach, y - reach, x + reach, y + reach], outline=colour, width=thick)
            continue
        for along, across in [(6 * dx, 6 * dy)] if kind == "line" else [(dx, dy), (dy, -dx)]:
            pen.line([(x - along, y - across), (x + along, y + across)], fill=colour, width=thick)
    return np.asarray(fine.reduce(FINE), dtype=np.float64)
