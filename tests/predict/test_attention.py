"""Attention coefficients of whole scans: equal to the equations, and in their place."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from attunet_jax.errors import BadArguments
from attunet_jax.model import AttentionUNet3D
from attunet_jax.predict.attention import attention_maps, sub_gates_of
from attunet_jax.predict.predictor import Predictor
from attunet_jax.volume import Volume

sys.path.append(str(Path(__file__).resolve().parents[1] / "model"))
import numpy_network  # noqa: E402  # pyright: ignore[reportMissingImports]

NumpyNetwork, resize = numpy_network.NumpyNetwork, numpy_network.resize
random_variables = numpy_network.random_variables


FIELDS = {
    "widths": (2, 3, 4, 4),
    "sub_gates": 2,
    "gating_channels": 3,
    "convolution": "compiler",
}
SETTINGS = {
    "argmax_over": "classes",
    "spatial": 1,
    "average_flips": False,
    "whole_volume_limit_vox": 10**6,
    "window_shape": (8, 16, 16),
    "window_overlap": 0.5,
    "window_sigma": 0.125,
}
NUMBERS = {"low_hu": -200, "high_hu": 250, "mean_hu": 60.0, "std_hu": 50.0}


def predictor_of(network: Any, variables: Any, **settings: Any) -> Predictor:
    config = {"predict": SETTINGS | settings, "classes": ["background", "bright"]}
    run: Any = SimpleNamespace(
        run={
            "spacing_mm": [2.0, 2.0, 2.0],
            "blur_mm": 0.0,
            "normalisation": NUMBERS,
            "hu_range": [-1024, 3071],
            "config": config,
        },
        step=3,
        variables=variables,
        outputs=("background", "bright"),
        network=network,
    )
    return Predictor(run)


@pytest.fixture(scope="module")
def network():
    return AttentionUNet3D(num_classes=2, **FIELDS)


@pytest.fixture(scope="module")
def variables(network):
    image = jnp.zeros((1, 8, 8, 8, 1))
    shapes = jax.eval_shape(
        lambda key: network.init(key, image, train=True), jax.random.key(0)
    )
    return random_variables(shapes, seed=3)


@pytest.fixture(scope="module")
def in_float32(variables):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), variables)


def by_hand(variables, normalised):
    """The coefficients of NumPy's network by (gate, sub-gate), with those of the skip.

    On the skips' grids; of an image whose sizes the network takes as they are.
    """
    fields = {
        **{"gate_source": "decoder", "gate_kernel": 2, "align_corners": False},
        **{"gate_output_transform": True, "deep_supervision": "fused", **FIELDS},
    }
    network = NumpyNetwork(variables, fields, train=False)
    network(normalised[None, ..., None].astype(np.float64))
    return {
        (int(name[5]), int(name[-1])): alpha[0, ..., 0]
        for name, alpha in network.alpha.items()
    }


def normalised(image):
    return (image.clip(-200, 250) - 60.0) / 50


def test_a_whole_scans_coefficients_are_those_of_the_equations(
    network, variables, in_float32
):
    image = np.random.default_rng(0).integers(-200, 250, (16, 16, 32)).astype(np.int16)
    expected = by_hand(variables, normalised(image))
    by_numpy = NumpyNetwork(variables, FIELDS, train=False)
    skips, x = {}, normalised(image)[None, ..., None]
    for scale in (1, 2, 3):
        x = by_numpy.twice(f"encoder_{scale}", x)
        skips[scale] = x[0]
        x = numpy_network.pool(x)
    scan = Volume.of_array(image, (2, 2, 2))
    predictor = predictor_of(network, in_float32)
    maps = attention_maps(predictor, image, scan.affine, scan.grid, features=True)
    assert [(m.gate, m.sub_gate) for m in maps] == sorted(expected)
    assert sorted(expected) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    for one in maps:
        alpha = expected[one.gate, one.sub_gate]
        assert one.coefficients.dtype == np.float32
        np.testing.assert_allclose(one.coefficients, alpha, atol=1e-5)
        assert 0 <= one.coefficients.min() < one.coefficients.max() <= 1
        factor = 2 ** (one.gate - 1)
        on_scan = resize(alpha[None, ..., None], factor, False)[0, ..., 0]
        np.testing.assert_allclose(one.on_scan(), on_scan, atol=1e-5)
        assert one.skip is not None and one.gated is not None
        skip = skips[one.gate]
        np.testing.assert_allclose(one.skip, skip.mean(-1), atol=1e-4)
        gated = (alpha[..., None] * skip).mean(-1)
        np.testing.assert_allclose(one.gated, gated, atol=1e-4)


def test_windows_and_flips_are_averaged_as_probabilities_are(
    network, variables, in_float32
):
    """Of two windows along D, each flipped in-plane: by the formula of the docs."""
    image = np.random.default_rng(1).integers(-200, 250, (12, 16, 16)).astype(np.int16)
    total, weights = 0, 0
    weight = np.exp(-0.5 * ((np.arange(8) - 3.5) / (0.125 * 8)) ** 2)
    weight = np.maximum(weight[:, None, None] * _in_plane(), 1e-3)
    flips = [(), (1,), (2,), (1, 2)]
    for start in (0, 4):
        part = normalised(image)[start : start + 8]
        mean = 0
        for axes in flips:
            alpha = by_hand(variables, np.flip(part, axes))[3, 2]
            fine = resize(alpha[None, ..., None], 4, False)[0, ..., 0]
            mean = mean + np.flip(fine, axes) / 4
        pad = ((start, 4 - start), (0, 0), (0, 0))
        total = total + np.pad(mean * weight, pad)
        weights = weights + np.pad(weight, pad)
    predictor = predictor_of(
        network, in_float32, average_flips=True, whole_volume_limit_vox=100
    )
    found = predictor.attention(image, spacing_mm=(2, 2, 2))[-1]
    assert (found.gate, found.sub_gate) == (3, 2)
    np.testing.assert_allclose(found.coefficients, total / weights, atol=1e-5)
    np.testing.assert_array_equal(found.coefficients, found.on_scan())


def _in_plane():
    x = np.exp(-0.5 * ((np.arange(16) - 7.5) / (0.125 * 16)) ** 2)
    return x[:, None] * x


class BlobFinder:
    """A network whose gates see what is bright: the mean of each block of the skip."""

    widths, sub_gates, convolution = (1, 1, 1, 1), 1, "compiler"

    def apply(self, variables, image, train, **_):
        sown = {}
        for gate in (2, 3):
            factor = 2 ** (gate - 1)
            batch, *sizes, channels = image.shape
            shape = [n for size in sizes for n in (size // factor, factor)]
            blocks = image.reshape(batch, *shape, channels).mean((2, 4, 6))
            alpha = jax.nn.sigmoid(4 * blocks)
            sown[f"gate_{gate}"] = {"sub_gate_1": {"alpha": (alpha,)}}
        return None, {"intermediates": sown}


def test_a_scan_of_any_size_and_spacing_has_the_coefficients_where_it_is_bright():
    """Padding, resampling and blocks leave a ball where it is, whole and in windows."""
    shape, spacing = (21, 37, 30), np.array([3.0, 1.5, 1.7])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing
    for centre, limit in (
        ((20, 18, 30), 10**6),
        ((47, 40, 12), 10**6),
        ((40, 30, 33), 9),
    ):
        image = np.full(shape, -200, np.int16)
        image[np.linalg.norm(grid - centre, axis=-1) < 8] = 250
        predictor = predictor_of(
            BlobFinder(), {"params": {}}, whole_volume_limit_vox=limit
        )
        for one in predictor.attention(image, spacing_mm=spacing):
            alpha = one.on_scan()
            assert alpha.shape == shape and 0 <= alpha.min() and alpha.max() <= 1
            weight = (alpha - alpha.min())[..., None]
            middle = (weight * grid).sum((0, 1, 2)) / weight.sum()
            # A quarter of a block, which is 4 mm or 8 mm a side.
            assert np.abs(middle - centre).max() < 2 ** (one.gate - 1) / 2, one.gate


def test_coefficients_of_a_padded_scan_interpolate_as_the_network_resizes():
    """`affine` says where each coefficient lies: by scipy at the scan's own voxels."""
    image = np.random.default_rng(2).integers(-200, 250, (13, 18, 21)).astype(np.int16)
    maps = predictor_of(BlobFinder(), {"params": {}}).attention(
        image, spacing_mm=(2, 2, 2)
    )
    padding = [
        ((n - m) // 2, n - m - (n - m) // 2)
        for n, m in zip((16, 32, 32), image.shape, strict=True)
    ]
    padded = np.pad(normalised(image), padding, constant_values=normalised(image).min())
    for one, factor in zip(maps, (2, 4), strict=True):
        shape = [n for size in padded.shape for n in (size // factor, factor)]
        alpha = 1 / (1 + np.exp(-4 * padded.reshape(shape).mean((1, 3, 5))))
        fine = resize(alpha[None, ..., None], factor, False)[0, ..., 0]
        inside = tuple(
            slice(b, b + n) for (b, _), n in zip(padding, image.shape, strict=True)
        )
        np.testing.assert_allclose(one.on_scan(), fine[inside], atol=1e-5)
        index = np.moveaxis(np.indices(image.shape), 0, -1)
        here = np.concatenate([index, np.ones_like(index[..., :1])], -1)
        world = here @ one.grid.affine.T
        at = (world @ np.linalg.inv(one.affine).T)[..., :3]
        expected = map_coordinates(
            one.coefficients, np.moveaxis(at, -1, 0), order=1, mode="nearest"
        )
        np.testing.assert_allclose(one.on_scan(), expected, atol=1e-5)


def test_a_network_without_gates_is_refused_in_words(network):
    for fields in ({"sub_gates": 0}, {"widths": (2, 3)}):
        without = network.clone(**fields)
        assert sub_gates_of(without) == []
        with pytest.raises(BadArguments, match="no attention gates"):
            predictor_of(without, {"params": {}}).attention(
                np.zeros((8, 8, 8)), spacing_mm=(2, 2, 2)
            )
