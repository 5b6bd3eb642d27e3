"""Statistics of each channel, normalisation by them, and their gradient rules.

The two rules stand here because JAX's own, derived from the same formulas, read a
volume more often: they sum again over all voxels what is known to be a multiple of
another sum, or zero.
"""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel: [.., C] of any type -> float32 [C]."""
    # Both sums in one reading, that of squares about a value near the mean:
    # E[x^2] - E[x]^2 loses all digits where |mean| >> deviation.
    wide, voxels = _widened(x), _voxels(x)
    near = _widened(x[..., :1, :1, :]).mean(voxels)
    mean = wide.mean(voxels)
    var = jnp.square(wide - near).mean(voxels) - jnp.square(mean - near)
    return mean, jnp.maximum(var, 0)


def _statistics_forward(x):
    mean, var = statistics(x)
    return (mean, var), (x, mean)


def _statistics_backward(residuals, cotangents):
    x, mean = residuals
    of_mean, of_var = (c / (x.size // x.shape[-1]) for c in cotangents)
    # The variance changes with the mean by the sum of all deviations from it: zero.
    gradient = of_mean + 2 * of_var * (_widened(x) - mean)
    return (gradient.astype(x.dtype),)


statistics.defvjp(_statistics_forward, _statistics_backward)


@jax.custom_vjp
def normalise(
    x: jax.Array, mean: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    """`(x - mean) scale + bias`: [.., C] of any type -> the same shape in float32.

    `mean`, `scale` (a BatchNorm's scale over the deviation) and `bias` are float32 [C].
    """
    return (_widened(x) - mean) * scale + bias


def _normalise_forward(x, mean, scale, bias):
    return normalise(x, mean, scale, bias), (x, mean, scale)


def _normalise_backward(residuals, cotangent):
    x, mean, scale = residuals
    of_bias = cotangent.sum(_voxels(x))
    of_scale = (cotangent * (_widened(x) - mean)).sum(_voxels(x))
    of_x = (cotangent * scale).astype(x.dtype)
    return of_x, -scale * of_bias, of_scale, of_bias


normalise.defvjp(_normalise_forward, _normalise_backward)


def normalise_relu(
    x: jax.Array, mean: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    """`normalise`, then negative values to zero, in the type of x."""
    return jax.nn.relu(normalise(x, mean, scale, bias)).astype(x.dtype)


def _widened(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _voxels(x):
    return tuple(range(x.ndim - 1))
