"""The decoder's convolution of a skip and coarser features, joined and apart."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attunet_jax.ops.conv import COMPILER, choose_formulation
from attunet_jax.ops.recompute import Joined, conv3x3x3_of_joined

FORMS = sorted({"matrix", choose_formulation("cpu", 1, "float32")} - {COMPILER})
BFLOAT16_FORMS = sorted(
    {"matrix", choose_formulation("cpu", 1, "bfloat16")} - {COMPILER}
)
# Coarse [B, D, H, W, C]: odd, of one voxel, of few voxels a slice and of many.
SHAPES = [(2, 3, 4, 5, 6), (1, 1, 1, 1, 1), (2, 2, 1, 7, 3), (1, 3, 16, 17, 2)]
SKIP, OUTPUTS = 2, 3


def draw(coarse: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """(skip, coarser features, kernel, what the gradient is asked of)."""
    rng = np.random.default_rng(0)
    fine = (coarse[0], *(2 * n for n in coarse[1:4]))
    kernel = (3, 3, 3, SKIP + coarse[4], OUTPUTS)
    shapes = [(*fine, SKIP), coarse, kernel, (OUTPUTS,), (*fine, OUTPUTS)]
    drawn = [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]
    # Once a bias: left out, so that the others are those that the bounds were set with.
    return [*drawn[:3], drawn[4]]


def convolved(formulation: str, align_corners: bool = False):
    def function(skip, coarser, kernel):
        joined = Joined(align_corners)
        return conv3x3x3_of_joined(joined, (skip, coarser), kernel, formulation)

    return function


def by_jax(skip, coarser, kernel):
    """JAX's own resizing and convolution, without anything of the project."""
    finer = jax.image.resize(coarser, (*skip.shape[:4], coarser.shape[4]), "linear")
    return jax.lax.conv_general_dilated(
        jnp.concatenate([skip, finer], -1),
        kernel,
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        precision="highest",
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("formulation", FORMS)
def test_apart_it_is_jaxs_convolution_of_the_joined_arrays(formulation, shape):
    *inputs, asked = draw(shape)

    def value_and_gradients(function):
        y, back = jax.vjp(function, *inputs)
        return y, *back(asked)

    got = jax.jit(lambda: value_and_gradients(convolved(formulation)))()
    expected = jax.jit(lambda: value_and_gradients(by_jax))()
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("formulation", BFLOAT16_FORMS)
def test_in_bfloat16_it_is_that_of_float32_to_bfloat16s_rounding(formulation, shape):
    *narrow, asked = draw(shape, jnp.bfloat16)

    def value_and_gradients(function, inputs, asked):
        y, back = jax.vjp(function, *inputs)
        return y, *back(asked.astype(y.dtype))

    got = jax.jit(lambda: value_and_gradients(convolved(formulation), narrow, asked))()
    assert [a.dtype for a in got] == [jnp.bfloat16] * 4
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), (narrow, asked))
    expected = value_and_gradients(by_jax, *wide)
    # A sum may cancel, what its terms were rounded by does not: twice, by 2**-8 at
    # most each; with these numbers by three quarters of that.
    sizes = value_and_gradients(by_jax, *jax.tree.map(jnp.abs, wide))
    for a, b, size in zip(got, expected, sizes, strict=True):
        assert (np.abs(np.asarray(a, np.float32) - b) <= 3 * 2**-9 * size).all()


@pytest.mark.parametrize("formulation", FORMS)
def test_apart_it_is_scipys_zoom_and_correlation(formulation):
    skip, coarser, kernel, _ = draw((1, 3, 4, 5, 2))
    got = convolved(formulation)(skip, coarser, kernel)
    planes = [*np.moveaxis(np.asarray(skip[0], float), -1, 0)]
    for x in np.moveaxis(np.asarray(coarser[0], float), -1, 0):
        # grid_mode: voxel centres at half-integers, as with align_corners=False.
        planes.append(ndimage.zoom(x, 2, order=1, mode="nearest", grid_mode=True))
    for o in range(OUTPUTS):
        expected = sum(
            ndimage.correlate(x, np.asarray(kernel[..., c, o], float), mode="constant")
            for c, x in enumerate(planes)
        )
        np.testing.assert_allclose(got[0, ..., o], expected, rtol=0, atol=1e-4)


def joins(formulation: str, dtype: Any, align_corners: bool) -> bool:
    """Whether an array of the fine grid and all channels is made anywhere."""
    inputs = draw((1, 2, 16, 17, 5), dtype)[:3]
    function = convolved(formulation, align_corners)
    text = str(jax.make_jaxpr(lambda *a: jax.vjp(function, *a)[0])(*inputs))
    return f"[1,4,32,34,{SKIP + 5}]" in text


def test_it_goes_apart_on_one_cpu_with_centres_at_half_integers_only():
    assert not joins("matrix", jnp.float32, False)
    assert joins(COMPILER, jnp.float32, False)
    assert not joins("matrix", jnp.bfloat16, False)
    assert joins("matrix", jnp.float32, True)


@pytest.mark.parametrize("formulation", FORMS)
def test_apart_the_gradient_needs_less_memory(formulation):
    inputs: Any = draw((1, 12, 20, 20, 16))[:3]

    def bytes_of(function) -> int:
        def value(*inputs):
            return jnp.square(function(*inputs)).sum()

        gradient = jax.jit(jax.grad(value, argnums=(0, 1, 2)))
        memory: Any = gradient.lower(*inputs).compile().memory_analysis()
        return memory.temp_size_in_bytes

    joined = (SKIP + 16) * 24 * 40 * 40 * 4
    assert bytes_of(by_jax) - bytes_of(convolved(formulation)) > joined
