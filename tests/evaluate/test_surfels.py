"""Surfels: their areas by hand, their polygons against the edges of the cell."""

import itertools
import math

import numpy as np
import pytest

from attunet_jax.evaluate.surfels import areas_mm2, cell_codes, polygons, surface

CORNERS = list(itertools.product((0, 1), repeat=3))


def test_one_voxel_is_an_octahedron():
    mask = np.ones((1, 1, 1), bool)
    cells, areas = surface(mask, (1, 1, 1))
    assert cells.shape == (2, 2, 2) and cells.all()
    # Eight equilateral triangles with sides of sqrt(1/2).
    assert areas.sum() == pytest.approx(8 * math.sqrt(3) / 4 / 2)


def test_one_long_voxel_is_a_long_octahedron():
    _, areas = surface(np.ones((1, 1, 1), bool), (6, 2, 2))
    # Triangles with corners at 3, 1 and 1 mm on the axes: half of |(1, 3, 3)|.
    assert areas.sum() == pytest.approx(8 * math.sqrt(1 + 9 + 9) / 2)


def test_a_flat_face_has_the_area_of_the_spacing():
    inside = {(0, h, w) for h in (0, 1) for w in (0, 1)}
    code = sum(1 << k for k, corner in enumerate(CORNERS) if corner in inside)
    assert areas_mm2((5.0, 0.7, 0.9))[code] == pytest.approx(0.7 * 0.9)


def test_an_edge_is_cut_by_a_slope():
    inside = {(0, 0, 0), (0, 0, 1)}
    code = sum(1 << k for k, corner in enumerate(CORNERS) if corner in inside)
    assert areas_mm2((3.0, 4.0, 10.0))[code] == pytest.approx(10 * 2.5)


def test_a_block_has_the_area_of_its_faces_edges_and_corners():
    _, areas = surface(np.ones((6, 6, 6), bool), (1, 1, 1))
    faces, edges, corners = 6 * 25, 12 * 5 * math.sqrt(0.5), 8 * math.sqrt(3) / 8
    assert areas.sum() == pytest.approx(faces + edges + corners)


def test_polygons_pass_each_edge_between_inside_and_outside_once():
    edges = [
        (a, b)
        for a, b in itertools.combinations(CORNERS, 2)
        if sum(x != y for x, y in zip(a, b, strict=True)) == 1
    ]
    for code in range(256):
        inside = {corner for k, corner in enumerate(CORNERS) if code >> k & 1}
        crossed = {
            tuple((x + y) / 2 for x, y in zip(a, b, strict=True))
            for a, b in edges
            if (a in inside) != (b in inside)
        }
        points = [point for polygon in polygons(code) for point in polygon]
        assert len(points) == len(set(points)), code
        assert set(points) == crossed, code
        for polygon in polygons(code):  # each side runs along a face of the cell
            for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                along = [x == y and x in (0, 1) for x, y in zip(a, b, strict=True)]
                assert any(along), code


def test_codes_name_the_eight_voxels_around_a_point():
    mask = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    framed = np.pad(mask, 1)
    for d, h, w in np.ndindex(4, 5, 6):
        bits = framed[d : d + 2, h : h + 2, w : w + 2].ravel()
        expected = sum(int(bit) << k for k, bit in enumerate(bits))
        assert cell_codes(mask)[d, h, w] == expected


def test_areas_in_surface_distances_definition_are_those_of_its_table():
    tables = pytest.importorskip("surface_distance.lookup_tables")
    # Corner 0 is the highest bit of its codes.
    theirs = [sum((c >> 7 - k & 1) << k for k in range(8)) for c in range(256)]
    for spacing in ((1.0, 1.0, 1.0), (5.0, 0.7, 0.9), (0.4, 2.3, 1.1)):
        areas = areas_mm2(spacing, "surface_distance")[theirs]
        expected = tables.create_table_neighbour_code_to_surface_area(spacing)
        np.testing.assert_allclose(areas, expected, rtol=1e-12)
