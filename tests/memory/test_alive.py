"""Bytes that are alive at once, of programs small enough to count by hand."""

from functools import partial

import jax
import jax.numpy as jnp

from attunet_jax.memory.alive import alive_at_peak

X = jax.ShapeDtypeStruct((1000, 10), jnp.float32)
A = jax.ShapeDtypeStruct((10, 20), jnp.float32)
B = jax.ShapeDtypeStruct((20, 5), jnp.float32)
WIDE, NARROW = 1000 * 20 * 4, 1000 * 5 * 4  # bytes of x @ a and of its product with b


def peak(function, *arguments, platform="cuda", donated=False):
    traced = jax.make_jaxpr(function)(*arguments)
    return alive_at_peak(traced, platform, donated=donated).bytes


def test_what_a_product_reads_and_writes_counts_and_elementwise_work_does_not():
    def forward(x, a, b):
        return jnp.tanh(2 * (x @ a) + 1) @ b

    # The input of the second product is written over the result of the first.
    assert peak(forward, X, A, B) == WIDE + NARROW

    # Ten more operations between them change nothing.
    def longer(x, a, b):
        y = x @ a
        for i in range(10):
            y = jnp.sin(y) * i + y
        return y @ b

    assert peak(longer, X, A, B) == WIDE + NARROW


def test_two_arrays_that_are_read_later_are_both_kept():
    def forward(x, a, b):
        first, second = x @ a, (x + 1) @ a
        return (first @ b) @ b.T + second

    # The most is there with the second: both, and (x + 1), written for its product.
    assert peak(forward, X, A, B) == 2 * WIDE + X.size * 4


def test_a_mask_is_kept_instead_of_the_activation_it_is_made_from():
    def loss(x, a, b):
        return (jax.nn.relu(x @ a) @ b).sum()

    # Backward: the product with b.T, and which of its values pass, a byte each. It is
    # overwritten by its product with the mask, and multiplied by a.T.
    found = peak(jax.grad(loss), X, A, B)
    assert found == WIDE + max(WIDE // 4 + NARROW, X.size * 4)


def test_activations_that_are_made_again_are_not_kept_except_where_xla_joins_them():
    def layers(x, again):
        def layer(x, w):
            return jnp.sin(x @ w) @ w.T

        once = jax.checkpoint(layer) if again else layer
        for _ in range(6):
            x = once(x, jnp.ones((10, 40)))
        return (x**2).sum()

    def gradient(x, again):
        return jax.grad(layers)(x, again)

    kept = peak(partial(gradient, again=False), X)
    again = peak(partial(gradient, again=True), X)
    widest = 1000 * 40 * 4
    assert kept > 6 * widest
    assert again < 3 * widest + 6 * X.size * 4
    joined = peak(partial(gradient, again=True), X, platform="cpu")
    assert joined > 6 * widest


def test_bfloat16_takes_half_except_on_a_cpu_that_computes_it_in_float32():
    def forward(x, a, b):
        return jnp.tanh(x @ a) @ b

    wide, half = (
        [jax.ShapeDtypeStruct(s.shape, t) for s in (X, A, B)]
        for t in (jnp.float32, jnp.bfloat16)
    )
    assert peak(forward, *half) == peak(forward, *wide) / 2
    assert peak(forward, *half, platform="cpu") == peak(forward, *wide)


def test_a_loop_counts_once_and_results_that_replace_arguments_not_at_all():
    def loop(x):
        return jax.lax.scan(lambda x, _: (jnp.cos(x @ x.T) @ x, None), x, None, 7)[0]

    square = jax.ShapeDtypeStruct((100, 100), jnp.float32)
    each = 100 * 100 * 4
    assert each < peak(loop, square) <= 4 * each
    assert peak(lambda x: x + 1, square, donated=True) == 0
    assert peak(lambda x: x + 1, square) == each


def test_the_branch_of_another_platform_does_not_count():
    def forward(x):
        return jax.lax.platform_dependent(
            x,
            cpu=lambda x: x @ jnp.ones((10, 1000)) @ jnp.ones((1000, 10)),
            default=jnp.sin,
        )

    assert peak(forward, X) == X.size * 4
    assert peak(forward, X, platform="cpu") > 1000 * 1000 * 4
