"""Surface distances: by hand, analytically, by brute force and by surface-distance."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial.distance import cdist

from attunet_jax.evaluate.surface import surface_distances
from attunet_jax.evaluate.surfels import areas_mm2, surface

ISOTROPIC = (1.0, 1.0, 1.0)


def block(shape, *ranges) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def test_a_mask_is_nowhere_away_from_itself():
    mask = np.random.default_rng(0).random((6, 7, 8)) < 0.3
    found = surface_distances(mask, mask, (3, 0.8, 0.8))
    assert found.surface_distance_mm() == 0
    assert found.hausdorff_mm(95) == 0
    assert found.surface_dice(0) == 1


def test_plates_three_millimetres_apart_are_three_millimetres_apart():
    # One voxel of 1.5 mm, wide as the array: the far side of each is 4.5 mm, the
    # near side 3 mm away from the other's near side.
    shape = (6, 40, 40)
    truth, prediction = block(shape, (0, 1)), block(shape, (3, 4))
    found = surface_distances(truth, prediction, (1.5, 1, 1))
    assert set(found.truth_to_prediction_mm) == {3.0, 4.5}
    assert found.surface_distance_mm() == pytest.approx(3.75)
    assert found.hausdorff_mm(95) == 4.5
    assert found.surface_dice(2.99) == 0
    assert found.surface_dice(3) == pytest.approx(0.5)
    assert found.surface_dice(4.5) == 1


def test_a_cube_three_voxels_inside_a_cube_is_three_voxels_away():
    shape = (16, 16, 16)
    inner, outer = block(shape, *[(3, 13)] * 3), block(shape, *[(0, 16)] * 3)
    means = surface_distances(inner, outer, ISOTROPIC).one_way_means_mm()
    assert means is not None
    forth, back = means
    assert forth == pytest.approx(3)
    assert 3 < back < 3 * np.sqrt(3)


def test_the_nearest_side_counts_at_unequal_spacing():
    shape = (16, 16, 16)
    inner, outer = block(shape, *[(3, 13)] * 3), block(shape, *[(0, 16)] * 3)
    found = surface_distances(inner, outer, (2, 0.5, 1))
    # 3 voxels along H are 1.5 mm: the sides at H are that far, no cell is farther
    # than the 6 mm to the next side along D.
    assert found.truth_to_prediction_mm.min() == 1.5
    assert found.truth_to_prediction_mm.max() <= 6


def test_order_of_the_arguments_is_truth_then_prediction():
    shape = (16, 16, 16)
    inner, outer = block(shape, *[(3, 13)] * 3), block(shape, *[(0, 16)] * 3)
    one = surface_distances(inner, outer, ISOTROPIC)
    other = surface_distances(outer, inner, ISOTROPIC)
    assert one.one_way_means_mm() == (other.one_way_means_mm() or ())[::-1]
    assert one.surface_distance_mm() == other.surface_distance_mm()


def shifted_balls(radius, shift, spacing) -> list[np.ndarray]:
    counts = [int(np.ceil(2 * (radius + shift) / s)) + 3 for s in spacing]
    d, h, w = np.meshgrid(
        *((np.arange(n) - n / 2) * s for n, s in zip(counts, spacing, strict=True)),
        indexing="ij",
    )
    return [
        (d - centre) ** 2 + h**2 + w**2 < radius**2
        for centre in (-shift / 2, shift / 2)
    ]


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.0, 0.8, 0.8), (1.0, 0.5, 1.5)])
def test_shifted_balls_come_to_lie_as_far_apart_as_geometry_says(spacing):
    radius, shift = 20.0, 8.0
    # A point at height z of one ball is |sqrt(r^2 + s^2 - 2 s z) - r| away from the
    # other ball, and all heights have the same share of a ball's surface.
    z = np.linspace(-radius, radius, 100_001)
    away = np.abs(np.sqrt(radius**2 + shift**2 - 2 * shift * z) - radius)
    short = []
    for voxel in np.array(spacing, float), np.array(spacing) / 2:
        truth, prediction = shifted_balls(radius, shift, voxel)
        found = surface_distances(truth, prediction, voxel)
        short.append(away.mean() - (found.surface_distance_mm() or np.nan))
        assert found.hausdorff_mm(95) == pytest.approx(
            np.quantile(away, 0.95), abs=voxel.max()
        )
    # Masks are staircases, and the nearest stair is nearer than the ball: short by
    # half a voxel or less, and by less the finer the voxels.
    assert 0 < short[0] < 0.5 * max(spacing)
    assert 0 < short[1] < 0.65 * short[0]


def brute_force(mask: np.ndarray, spacing) -> tuple[np.ndarray, np.ndarray]:
    """Positions and areas of the pieces of surface, one cell at a time."""
    framed, positions, areas = np.pad(mask, 1), [], []
    for cell in itertools.product(*(range(n + 1) for n in mask.shape)):
        corners = framed[tuple(slice(i, i + 2) for i in cell)].ravel()
        if corners.any() and not corners.all():
            positions.append(np.array(cell) * spacing)
            code = sum(int(bit) << k for k, bit in enumerate(corners))
            areas.append(areas_mm2(tuple(spacing))[code])
    return np.array(positions), np.array(areas)


@pytest.mark.parametrize("seed", range(3))
def test_distances_on_noise_equal_those_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    shape, spacing = rng.integers(3, 9, 3), rng.uniform(0.3, 4, 3)
    truth, prediction = (rng.random(shape) < share for share in (0.05, 0.3))
    truth[tuple(shape // 2)] = prediction[0, 0, 0] = True
    (here, area), (there, other_area) = (
        brute_force(mask, spacing) for mask in (truth, prediction)
    )
    apart = cdist(here, there)
    forth, back = apart.min(axis=1), apart.min(axis=0)

    # In a larger array: what lies around the masks must not matter.
    wider = [np.pad(mask, ((2, 9), (0, 5), (7, 1))) for mask in (truth, prediction)]
    found = surface_distances(wider[0], wider[1], spacing)
    assert found.one_way_means_mm() == pytest.approx(
        (
            (forth * area).sum() / area.sum(),
            (back * other_area).sum() / other_area.sum(),
        )
    )
    for tolerance in (0, spacing.min(), spacing.max()):
        near = area[forth <= tolerance + 1e-9].sum()
        near += other_area[back <= tolerance + 1e-9].sum()
        assert found.surface_dice(tolerance + 1e-9) == pytest.approx(
            near / (area.sum() + other_area.sum())
        )
    # 95 % of the area lies within the robust Hausdorff distance, on both surfaces,
    # and on one of them no smaller distance would do.
    robust = found.hausdorff_mm(95)
    assert robust is not None
    within = [
        (a[d <= robust + 1e-9].sum() / a.sum(), a[d < robust - 1e-9].sum() / a.sum())
        for d, a in ((forth, area), (back, other_area))
    ]
    assert min(inside for inside, _ in within) >= 0.95 - 1e-9
    assert min(below for _, below in within) < 0.95


def test_near_far_and_dense_surfaces_are_as_far_as_by_a_distance_transform():
    """However the nearest piece is looked for: around it, in a tree, by a transform."""
    rng = np.random.default_rng(0)
    smooth = [gaussian_filter(rng.random((40, 50, 60)), 3) for _ in "ab"]
    noise = [rng.random((20, 21, 22)) < share for share in (0.5, 0.01)]
    thin = np.zeros((3, 70, 70, 70), bool)
    thin[0, 2:4, 2:60, 2:60] = thin[1, 60:61, 5:66, 5:66] = thin[2, 5:9, 2:60, 9:60] = 1
    for truth, prediction in (
        [values > np.quantile(values, 0.8) for values in smooth],
        noise,
        thin[:2],
        thin[::2],
    ):
        for spacing in (ISOTROPIC, (5.0, 0.7, 0.8), (0.4, 1.7, 1.1)):
            found = surface_distances(truth, prediction, spacing)
            here, there = (surface(m, spacing)[0] for m in (truth, prediction))
            for distances, one, other in (
                (found.truth_to_prediction_mm, here, there),
                (found.prediction_to_truth_mm, there, here),
            ):
                expected = np.asarray(distance_transform_edt(~other, sampling=spacing))
                expected = expected[one]
                np.testing.assert_allclose(distances, np.sort(expected), rtol=1e-12)


# 2026-11: surface-distance 0.1, the last release, calls names that SciPy deprecates.
@pytest.mark.filterwarnings("ignore:Please import `:DeprecationWarning")
def test_distances_are_those_of_surface_distance():
    peer = pytest.importorskip("surface_distance")
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shape, spacing = rng.integers(8, 20, 3), tuple(rng.uniform(0.5, 3, 3))
        noise = [gaussian_filter(rng.random(shape), (seed % 2) * 1.5) for _ in "ab"]
        truth, prediction = (values > np.quantile(values, 0.8) for values in noise)
        ours = surface_distances(truth, prediction, spacing)
        same = surface_distances(
            truth, prediction, spacing, definition="surface_distance"
        )
        theirs = peer.compute_surface_distances(truth, prediction, spacing)
        for distances, name in (
            (ours.truth_to_prediction_mm, "distances_gt_to_pred"),
            (ours.prediction_to_truth_mm, "distances_pred_to_gt"),
        ):
            np.testing.assert_allclose(distances, np.sort(theirs[name]), rtol=1e-12)
        assert ours.hausdorff_mm(95) == peer.compute_robust_hausdorff(theirs, 95)
        # Its table has other triangles for bent polygons: areas differ by a percent.
        assert ours.truth_areas_mm2.sum() == pytest.approx(
            theirs["surfel_areas_gt"].sum(), rel=0.02
        )
        means = peer.compute_average_surface_distance(theirs)
        share = peer.compute_surface_dice_at_tolerance(theirs, 2)
        assert ours.one_way_means_mm() == pytest.approx(means, rel=0.005)
        assert ours.surface_dice(2) == pytest.approx(share, abs=0.002)
        # With its definition of areas they are the same.
        np.testing.assert_allclose(
            same.truth_areas_mm2.sum(), theirs["surfel_areas_gt"].sum(), rtol=1e-12
        )
        assert same.one_way_means_mm() == pytest.approx(means, rel=1e-12)
        assert same.surface_dice(2) == pytest.approx(share, rel=1e-12)
        assert same.hausdorff_mm(95) == peer.compute_robust_hausdorff(theirs, 95)


def test_distances_to_nothing_are_undefined():
    some, nothing = block((4, 4, 4), (1, 3)), np.zeros((4, 4, 4), bool)
    for truth, prediction in ((some, nothing), (nothing, some)):
        found = surface_distances(truth, prediction, ISOTROPIC)
        assert found.one_way_means_mm() is None
        assert found.surface_distance_mm() is None
        assert found.hausdorff_mm(95) is None
        assert found.surface_dice(2) == 0
    neither = surface_distances(nothing, nothing, ISOTROPIC)
    assert neither.surface_distance_mm() is None
    assert neither.surface_dice(2) is None


def test_a_spacing_that_is_not_three_positive_lengths_is_refused():
    some = block((4, 4, 4), (1, 3))
    for spacing in (1, 1), (1, 1, 0), (1, -1, 1), (1, np.nan, 1):
        with pytest.raises(ValueError, match="spacing"):
            surface_distances(some, some, spacing)
