"""Back onto the scan's own grid: scipy by way of the world, and in little memory."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from attunet_jax import volume

SHAPE = (6, 10, 14)


def scan(voxels, spacing_mm=(3.0, 0.8, 0.9), turned=0.2):
    """A `Volume` as read from an oblique file of axis order y, z, x with z down."""
    c, s = np.cos(turned), np.sin(turned)
    turn = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    d, h, w = spacing_mm
    affine = turn @ [[0, 0, w, 9], [h, 0, 0, -70], [0, -d, 0, 33], [0, 0, 0, 1]]
    _, view = volume.canonical(np.zeros(np.array(voxels.shape)[[1, 0, 2]]), affine)
    grid = volume.Grid((voxels.shape[1], voxels.shape[0], voxels.shape[2]), affine)
    return volume.Volume(voxels, view, grid, "scan.nii")


def through_the_world(values, affine, target):
    index = np.indices(target.voxels.shape).reshape(3, -1)
    world = target.affine @ np.vstack([index, np.ones(index.shape[1])])
    where = (np.linalg.inv(affine) @ world)[:3]
    return ndimage.map_coordinates(
        values.astype(float), where, order=1, mode="nearest"
    ).reshape(target.voxels.shape)


@pytest.fixture
def image():
    rng = np.random.default_rng(5)
    return scan(rng.uniform(-1000, 1000, SHAPE).astype(np.float32))


def probabilities_of(classes, shape):
    rng = np.random.default_rng(classes)
    smooth = ndimage.gaussian_filter(rng.normal(size=(classes, *shape)), (0, 1, 1, 1))
    e = np.exp(5 * smooth)
    return (e / e.sum(0)).astype(np.float32)


@pytest.mark.parametrize("spacing_mm", [(2, 2, 2), (1, 0.5, 1.2), (5, 3, 0.9)])
def test_values_come_back_where_they_lie_in_the_world(image, spacing_mm):
    small = volume.resample(image, spacing_mm, order="linear")
    got = volume.onto_grid(small.voxels, small.affine, image.grid, order="linear")
    expected = through_the_world(small.voxels, small.affine, image)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=3e-3)


def test_a_crop_comes_back_where_it_was_cut(image):
    first = np.eye(4)
    first[:3, 3] = (1, 2, 3)
    cut = image.voxels[1:5, 2:9, 3:12]
    got = volume.onto_grid(cut, image.affine @ first, image.grid, order="nearest")
    np.testing.assert_array_equal(got[1:5, 2:9, 3:12], cut)
    assert got.shape == SHAPE


@pytest.mark.parametrize("order", ["linear", "nearest"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_was_never_resampled_comes_back_bit_for_bit(image, order, dtype):
    values = (image.voxels / 8).astype(dtype)
    got = volume.onto_grid(values, image.affine, image.grid, order=order)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, values)


def test_labels_survive_refinement_and_return():
    """At a third of the spacing every voxel centre is there again."""
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    truth = scan(labels)
    fine = volume.resample(truth, truth.spacing_mm / 3, order="nearest")
    back = volume.onto_grid(fine.voxels, fine.affine, truth.grid, order="nearest")
    np.testing.assert_array_equal(back, labels)


def test_probabilities_go_class_by_class(image):
    small = volume.resample(image, (2, 2, 2), order="linear")
    p = probabilities_of(3, small.voxels.shape)
    got = volume.onto_grid(p, small.affine, image.grid, order="linear")
    assert got.shape == (3, *SHAPE) and got.dtype == np.float32
    for one, q in zip(got, p, strict=True):
        np.testing.assert_allclose(
            one, through_the_world(q, small.affine, image), atol=1e-5
        )


def test_labels_are_the_most_probable_class_whatever_the_size_of_slabs(image):
    small = volume.resample(image, (2, 2, 2), order="linear")
    for classes in (1, 2, 4):
        p = probabilities_of(classes, small.voxels.shape)
        expected = np.stack([through_the_world(q, small.affine, image) for q in p])
        for slab_vox in (1, 300, 2**22):
            got = volume.labels_onto_grid(
                p, small.affine, image.grid, slab_vox=slab_vox
            )
            assert got.dtype == np.uint8 and got.shape == SHAPE
            chosen = np.take_along_axis(expected, got[None].astype(int), 0)[0]
            np.testing.assert_allclose(chosen, expected.max(0), atol=1e-5)
            assert classes == 1 or len(np.unique(got)) == classes


def test_labels_of_probabilities_on_the_grid_are_their_argmax(image):
    p = probabilities_of(4, SHAPE)
    got = volume.labels_onto_grid(p, image.affine, image.grid)
    np.testing.assert_array_equal(got, p.argmax(0))


def test_the_lower_class_wins_a_tie_and_255_is_a_class(image):
    p = np.zeros((256, *SHAPE), np.float32)
    p[3] = p[200] = 0.5
    p[255, 0] = 0.75
    got = volume.labels_onto_grid(p, image.affine, image.grid)
    assert (got[0] == 255).all() and (got[1:] == 3).all()
    with pytest.raises(ValueError, match="257 classes"):
        volume.labels_onto_grid(np.zeros((257, 1, 1, 1)), image.affine, image.grid)


def test_labels_are_made_without_holding_all_classes_at_full_size():
    truth = scan(np.zeros((96, 256, 256), np.uint8), (2.0, 1, 1), turned=0)
    small = volume.resample(truth, (8, 8, 8), order="nearest")
    p = probabilities_of(6, small.voxels.shape)
    tracemalloc.start()
    try:
        volume.labels_onto_grid(p, small.affine, truth.grid)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    full_size_float32 = truth.voxels.size * 4
    # The uint8 result and slabs of 2**22 voxels; six classes would be 6 times.
    assert peak < 4 * full_size_float32


def test_grids_rotated_against_each_other_are_refused(image):
    other = scan(image.voxels, turned=0.3)
    with pytest.raises(ValueError, match="rotated"):
        volume.onto_grid(image.voxels, other.affine, image.grid, order="linear")
