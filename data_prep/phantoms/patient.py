"""Draws the abdomen of one random patient: which organ lies where."""

from collections.abc import Sequence

import numpy as np

from data_prep.phantoms.body import (
    BONE_HU,
    FAT_HU,
    KIDNEY,
    LUNG_HU,
    MUSCLE_HU,
    PANCREAS,
    SPLEEN,
    Abdomen,
    finish,
)

HEIGHT_MM = 190.0


def make_patient(
    rng: np.random.Generator, shape: Sequence[int], spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the image, int16 HU, and the label map, uint8, both `[D, H, W]`.

    Both are canonical. Labels: 1 spleen, 2 pancreas (60 to 110 ml in most patients), 3
    both kidneys.
    """
    a = Abdomen(rng, shape, spacing_mm, HEIGHT_MM)
    offset = rng.normal(0, 4)  # contrast timing: shifts all soft tissue
    _trunk(a)
    _bowel(a, offset)
    _liver(a, 105 + offset + rng.normal(0, 6))
    spleen = _spleen(a, 120 + offset + rng.normal(0, 5))
    _kidneys(a, 175 + offset)
    _stomach(a, offset)
    _pancreas(a, spleen, 92 + offset + rng.normal(0, 4), 160 + offset)
    _great_vessels(a, 160 + offset)
    _lungs(a)
    image = finish(a, spacing_mm, noise_hu=rng.uniform(10, 18))
    return image, a.label


def _trunk(a: Abdomen) -> None:
    rng = a.rng
    across, deep = 142 * a.size, 100 * a.size
    reach = np.sqrt((a.x / np.float32(across)) ** 2 + (a.y / np.float32(deep)) ** 2)
    a.hu[reach < 1] = FAT_HU + rng.normal(0, 5)
    a.hu[(reach < 1) & (reach > 0.985)] = 10  # skin
    wall = 1 - a.fat
    muscle = (reach < wall) & (reach > wall - 0.075)
    a.hu[muscle] = MUSCLE_HU
    # Ribs run obliquely through the wall, lower in front; they end above the navel.
    angle = np.arctan2(a.y, np.abs(a.x))
    along = np.mod(a.z - 32 * angle, np.float32(27.0))
    thin = (reach < wall - 0.012) & (reach > wall - 0.055)
    a.hu[thin & (along < 9) & (a.z + 25 * angle > 75) & (angle > -0.7)] = BONE_HU
    # Vertebral bodies, the discs between them, the canal, processes and muscles.
    back = 52 * a.size
    for side in (-1, 1):
        a.paint(a.ellipsoid((side * 38, back + 18, 90), (24, 20, 400)), MUSCLE_HU)
        a.paint(a.ellipsoid((side * 34, back - 10, 30), (16, 15, 70)), MUSCLE_HU)
        a.paint(a.ellipsoid((side * 22, back + 14, 90), (16, 5, 400)), BONE_HU)
    body = np.sqrt((a.x / 21) ** 2 + ((a.y - back) / 17) ** 2)
    a.hu[body < 1] = 190
    a.hu[(body < 1) & (body > 0.85)] = 420
    a.hu[(body < 1) & (np.mod(a.z, np.float32(34.0)) < 7)] = 90
    canal = np.hypot(a.x, a.y - back - 24)
    a.hu[canal < 13] = BONE_HU
    a.hu[canal < 8] = 30
    a.paint(a.ellipsoid((0, back + 42, 90), (4, 12, 400)), BONE_HU)
    a.cavity = (reach < wall - 0.08) & (body > 1)


def _bowel(a: Abdomen, offset: float) -> None:
    """Loops in the lower front and the colon on both sides, with their contents."""
    rng = a.rng
    for _ in range(rng.integers(9, 15)):
        start = np.array(
            [rng.uniform(-75, 75), rng.uniform(-62, -5), rng.uniform(-15, 55)]
        )
        points = [start * a.size]
        for _ in range(3):
            points.append(points[-1] + rng.normal(0, [20, 9, 11]))
        radius = rng.uniform(8, 13)
        part = a.tube(points, [radius] * 4)
        a.paint(part, 62 + offset + rng.normal(0, 8))
        filling = rng.choice([25, 40, 200, -850], p=[0.45, 0.25, 0.15, 0.15])
        a.paint(part, filling, within_mm=3.0)
    for side in (-1, 1):
        x = side * rng.uniform(88, 100)
        colon = a.tube(
            [a.jitter((x, rng.uniform(-5, 15), z), 4) for z in (-20, 30, 75)],
            [rng.uniform(14, 19)] * 3,
        )
        a.paint(colon, 58 + offset)
        a.paint(colon, rng.choice([-600, 30, -900]), within_mm=3.0)


def _liver(a: Abdomen, hu: float) -> None:
    rng = a.rng
    stretch = rng.uniform(0.9, 1.15)
    centre = a.jitter((-62, -8, 128), 6)
    a.paint(a.ellipsoid(centre, np.array([62, 66, 58]) * a.size * stretch, 0.4), hu)
    left = a.jitter((-5, -52, 140), 7)
    a.paint(a.ellipsoid(left, np.array([58, 24, 32]) * a.size * stretch, 0.4), hu)
    for _ in range(5):  # hepatic veins
        start = centre + rng.normal(0, 18, 3)
        a.paint(a.tube([start, start + rng.normal(0, 25, 3)], [3.5, 2.5]), hu + 45)
    gallbladder = centre + np.array([14, -34, -48]) * a.size
    a.paint(a.ellipsoid(gallbladder, rng.uniform([10, 12, 16], [15, 18, 26])), 12)


def _spleen(a: Abdomen, hu: float) -> np.ndarray:
    """Returns the hilum: the splenic vessels and the pancreas's tail end there."""
    centre = a.jitter((88, 26, 122), 6)
    radii = a.rng.uniform([20, 34, 32], [29, 46, 50]) * a.size
    a.paint(a.ellipsoid(centre, radii, 0.8), hu, SPLEEN)
    return centre + np.array([-radii[0] * 0.9, -6, -radii[2] * 0.2])


def _kidneys(a: Abdomen, cortex_hu: float) -> None:
    for side, low in ((-1, 52), (1, 62)):
        centre = a.jitter((side * 56, 44, low), 6)
        radii = a.rng.uniform([21, 23, 43], [28, 29, 56]) * a.size
        part = a.ellipsoid(centre, radii, 0.6)
        a.paint(part, cortex_hu + a.rng.normal(0, 6), KIDNEY)
        a.paint(part, cortex_hu - 35, KIDNEY, (KIDNEY,), within_mm=8)
        pelvis = centre + np.array([-side * radii[0] * 0.75, 0, 0])
        a.paint(a.ellipsoid(pelvis, (9, 8, 14)), FAT_HU, 0, (0, KIDNEY))


def _stomach(a: Abdomen, offset: float) -> None:
    rng = a.rng
    curve = [
        a.jitter((62, -8, 152), 6),
        a.jitter((52, -42, 122), 6),
        a.jitter((18, -60, 96), 6),
        a.jitter((-26, -50, 88), 6),
    ]
    part = a.tube(curve, rng.uniform([22, 20, 15, 9], [34, 30, 22, 14]))
    a.paint(part, 75 + offset)
    box, distance = part
    a.paint(part, rng.choice([15, 35, 180], p=[0.5, 0.3, 0.2]), within_mm=4)
    # Air gathers in front: the patient lies on the back.
    level = np.quantile(a.y[box][distance < -4], rng.uniform(0.1, 0.5))
    air = (distance < -4) & (a.y[box] < level) & (a.label[box] == 0)
    a.hu[box][air] = -950


def _pancreas(a: Abdomen, hilum: np.ndarray, hu: float, vein_hu: float) -> None:
    """The head in the duodenal C, the body across the spine, the tail at the spleen."""
    rng = a.rng
    head = a.jitter((-38, 2, 62), 7)
    neck = head + rng.normal([26, -15, 14], [4, 4, 5])
    body = np.array([rng.normal(14, 5), rng.normal(-12, 5), neck[2] + rng.normal(9, 7)])
    tail = hilum + rng.normal([-14, -4, 0], [5, 4, 7])
    middle = (body + tail) / 2 + rng.normal([0, -2, 2], [4, 5, 6])
    low = head + rng.normal([0, 2, -15], [3, 3, 4])
    thickness = rng.uniform(0.92, 1.15)
    radii = np.array([12.5, 16.5, 11.5, 12, 12, 10.5]) * thickness
    radii *= rng.uniform(0.92, 1.1, 6)
    duodenum = a.tube(
        [
            neck + [-40, -14, 6],
            head + [-27, 0, 6],
            low + [-20, 5, -14],
            low + [18, 8, -24],
        ],
        [10, 11, 11, 10],
    )
    a.paint(duodenum, 68 + rng.normal(0, 6))
    a.paint(duodenum, rng.choice([20, 40, -700], p=[0.5, 0.35, 0.15]), within_mm=3.5)
    gland = a.tube([low, head, neck, body, middle, tail], radii, 0.9)
    # A thin coat of fat separates the gland from its neighbours in most places.
    box, distance = gland
    a.paint((box, distance - np.float32(rng.uniform(1.0, 3.0))), FAT_HU)
    a.paint(gland, hu, PANCREAS)
    # Splenic vein along the back of body and tail, portal vein on to the liver.
    behind = np.array([0, 10, 1])
    vein = [hilum, middle + behind, body + behind, neck + [-2, 10, 2]]
    a.paint(a.tube(vein, [3.5, 4.5, 5, 6]), vein_hu, 0, (0, PANCREAS))
    portal = [vein[-1], neck + [-14, 4, 22], neck + [-34, -2, 42]]
    a.paint(a.tube(portal, [6.5, 7, 6]), vein_hu, 0, (0, PANCREAS))
    mesenteric = [vein[-1], vein[-1] + [2, -4, -35], vein[-1] + [0, -10, -80]]
    a.paint(a.tube(mesenteric, [6, 5.5, 5]), vein_hu, 0, (0, PANCREAS))


def _great_vessels(a: Abdomen, hu: float) -> None:
    front = 52 * a.size - 17 - 13
    shift = a.rng.normal(0, 4)
    over = (0, PANCREAS)
    aorta = [(8 + shift + a.rng.normal(0, 3), front, z) for z in (-30, 60, 140, 220)]
    cava = [(-19 + shift, front - 2, z) for z in (-30, 60, 140, 220)]
    a.paint(a.tube(aorta, [a.rng.uniform(9, 12)] * 4), hu + 8, 0, over)
    a.paint(a.tube(cava, [a.rng.uniform(9, 12)] * 4), hu - 15, 0, over)
    artery = [aorta[1], (4 + shift, front - 22, 52), (2 + shift, front - 34, -10)]
    a.paint(a.tube(artery, [4.5, 4, 3.5]), hu + 8, 0, over)


def _lungs(a: Abdomen) -> None:
    """The lungs above the domes of the diaphragm, around the organs below."""
    across, deep = 142 * a.size, 100 * a.size
    reach = np.sqrt((a.x / np.float32(across)) ** 2 + (a.y / np.float32(deep)) ** 2)
    top = a.rng.uniform(168, 182)
    for side in (-1, 1):
        dome = top - 55 * (
            ((a.x - side * 62) / np.float32(80)) ** 2
            + ((a.y + 5) / np.float32(75)) ** 2
        )
        lung = (reach < 1 - a.fat - 0.09) & (a.z > dome) & (side * a.x > 14)
        lung &= (a.label == 0) & (a.y < 80 * a.size) & (a.z > 95)
        a.hu[lung] = LUNG_HU
