"""Bytes of a compiled program's kernels, counted by hand.

tiny_step.hlo is one step of a network of a single 3x3x3 convolution (4 channels in, 8
out, bfloat16) with BatchNorm and ReLU, the mean of squares as loss and gradient
descent, on 4 cases of 8x8x8 voxels, compiled by jax 0.11.2 for two H100.
"""

from pathlib import Path

from launch.compile_for.hlo import nbytes
from launch.compile_for.kernels import kernels_of, total_bytes, total_launches
from launch.compile_for.parts import by_part

TINY_STEP = Path(__file__).with_name("tiny_step.hlo").read_text(encoding="utf-8")

# Bytes of what each device holds: two cases, all parameters.
IMAGE = 2 * 8**3 * 4 * 2  # int16, and as large in bfloat16
WIDE = 2 * 8**3 * 8 * 4  # the convolution's result in float32
VOLUME = WIDE // 2  # the same in bfloat16
KERNEL = 27 * 4 * 8 * 4
CHANNELS = 8 * 4  # a float32 for each channel
SCALAR = 4

# In the order of launch: (name, bytes read and written, whether it transposes).
BY_HAND = [
    ("loop_transpose_fusion", KERNEL + KERNEL // 2, True),
    ("loop_transpose_fusion", IMAGE + IMAGE, True),
    ("__cudnn$convForward bf012_oi012->bf012", IMAGE + KERNEL // 2 + VOLUME, False),
    ("input_reduce_fusion", VOLUME + CHANNELS, False),  # sums for the mean
    ("all-reduce", 2 * CHANNELS, False),
    # Reads mean and volume, writes sums of squares and the volume less its mean.
    ("input_reduce_subtract_fusion", 2 * CHANNELS + VOLUME + WIDE, False),
    ("all-reduce", 2 * CHANNELS, False),
    # Prediction minus label: bias, scale, variance; two volumes read, one written.
    ("loop_subtract_fusion", 3 * CHANNELS + 3 * WIDE, False),
    ("input_reduce_select_fusion", 3 * CHANNELS + 3 * WIDE + SCALAR, False),
    ("input_reduce_fusion", 2 * WIDE + 2 * CHANNELS, False),
    ("wrapped_concatenate", 2 * (2 * CHANNELS + SCALAR), False),
    ("all-reduce", 2 * (2 * CHANNELS + SCALAR), False),
    ("wrapped_slice", 2 * CHANNELS, False),  # not all that stands in its operand
    ("wrapped_slice", 2 * CHANNELS, False),
    ("loop_add_fusion", 2 * WIDE + 4 * CHANNELS + VOLUME, False),
    (
        "__cudnn$convBackwardFilter bf012_oi012->bf012",
        IMAGE + VOLUME + KERNEL // 2,
        False,
    ),
    ("all-reduce-start", 2 * (KERNEL // 2), False),
    ("wrapped_slice", 2 * SCALAR, False),
    ("loop_transpose_fusion", KERNEL // 2 + KERNEL + KERNEL, True),
    ("loop_multiply_fusion", 2 * SCALAR, False),
    ("loop_subtract_fusion", 3 * CHANNELS, False),
    ("loop_subtract_fusion", 4 * CHANNELS, False),
    ("copy", 2 * KERNEL, False),
]


def test_every_kernel_of_a_compiled_step_moves_the_bytes_counted_by_hand():
    found = kernels_of(TINY_STEP)
    assert [(k.kind, k.bytes, k.transposes) for k in found] == BY_HAND
    assert total_bytes(found) == sum(size for _, size, _ in BY_HAND)


def test_bytes_belong_to_the_part_that_reads_or_makes_them():
    parts = by_part(kernels_of(TINY_STEP))
    assert parts["convolutions"] == (2, 2 * (IMAGE + KERNEL // 2 + VOLUME))
    assert parts["augmentation"] == (1, 2 * IMAGE)
    messages = 4 * CHANNELS + 2 * (2 * CHANNELS + SCALAR) + 2 * (KERNEL // 2)
    assert parts["between devices"] == (4, messages)
    # Two kernels of the loss normalise first: only label, difference (written and read
    # again) and the mean are its own; then the slice of the summed mean, and the mean.
    assert parts["loss"] == (4, 3 * WIDE + SCALAR + 2 * SCALAR + 2 * SCALAR)
    # The update reads the kernel's gradient, and variance and gradient of the scale,
    # as what the backward pass ends with.
    update = (2 * KERNEL) + 3 * CHANNELS + 2 * CHANNELS + 2 * KERNEL
    assert parts["optimizer"] == (4, update)
    rest = sum(size for _, size, _ in BY_HAND) - sum(
        size for name, (_, size) in parts.items() if name != "normalisation and ReLU"
    )
    assert parts["normalisation and ReLU"] == (8, rest)
    assert set(parts) == {
        "convolutions",
        "augmentation",
        "between devices",
        "loss",
        "optimizer",
        "normalisation and ReLU",
    }


SLICES = """
%fused_slices (p.0: f32[4,16], p.1: f32[100]) -> f32[4,4] {
  %p.0 = f32[4,16]{1,0} parameter(0)
  %near = f32[4,4]{1,0} slice(%p.0), slice={[0:4], [0:4]}, metadata={op_name="a/b"}
  %p.1 = f32[100]{0} parameter(1)
  %view = f32[10,10]{1,0} bitcast(%p.1)
  %rows = f32[4,4]{1,0} slice(%view), slice={[0:8:2], [0:4]}, metadata={op_name="a/c"}
  ROOT %sum = f32[4,4]{1,0} add(%near, %rows), metadata={op_name="a/d"}
}

%fused_strided (p.2: bf16[4,16]) -> bf16[4,8] {
  %p.2 = bf16[4,16]{1,0} parameter(0)
  ROOT %odd = bf16[4,8]{1,0} slice(%p.2), slice={[0:4], [1:16:2]}
}

%fused_both (p.5: bf16[4,16]) -> bf16[4,4] {
  %p.5 = bf16[4,16]{1,0} parameter(0)
  %part = bf16[4,4]{1,0} slice(%p.5), slice={[0:4], [0:4]}
  %all = bf16[4,16]{1,0} negate(%p.5)
  %rest = bf16[4,4]{1,0} slice(%all), slice={[0:4], [4:8]}
  ROOT %s = bf16[4,4]{1,0} add(%part, %rest)
}

%fused_in_place (p.3: f32[64], p.4: f32[8], at: s32[]) -> f32[64] {
  %p.3 = f32[64]{0} parameter(0)
  %p.4 = f32[8]{0} parameter(1)
  %at = s32[] parameter(2)
  ROOT %new = f32[64]{0} dynamic-update-slice(%p.3, %p.4, %at)
}

ENTRY %main (a: f32[4,16], b: f32[100], c: bf16[4,16], d: f32[64], e: f32[8], i: s32[]) -> f32[64] {
  %a = f32[4,16]{1,0} parameter(0)
  %b = f32[100]{0} parameter(1)
  %c = bf16[4,16]{1,0} parameter(2)
  %d = f32[64]{0} parameter(3)
  %e = f32[8]{0} parameter(4)
  %i = s32[] parameter(5)
  %slices = f32[4,4]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused_slices
  %strided = bf16[4,8]{1,0} fusion(%c), kind=kLoop, calls=%fused_strided
  %both = bf16[4,4]{1,0} fusion(%c), kind=kLoop, calls=%fused_both
  %turned = bf16[4,16]{0,1} copy(%c)
  %same = bf16[4,16]{1,0} copy(%c)
  ROOT %in_place = f32[64]{0} fusion(%d, %e, %i), kind=kLoop, calls=%fused_in_place
}
"""  # noqa: E501


def test_of_an_operand_that_is_only_sliced_the_slices_count():
    slices, strided, both, turned, same, in_place = kernels_of(SLICES)
    assert slices.moved == (("a/b", 64), ("a/c", 64), ("a/d", 64))
    # Every second number is carried with the one beside it.
    assert [size for _, size in strided.moved] == [2 * 4 * 16, 2 * 4 * 8]
    assert [size for _, size in both.moved] == [2 * 4 * 16, 2 * 4 * 4]
    assert (turned.transposes, same.transposes) == (True, False)
    assert turned.bytes == same.bytes == 2 * 2 * 4 * 16
    # Read: the eight new numbers and the place. Written: the eight.
    assert [size for _, size in in_place.moved] == [32, 4, 32]


LOOPS = """
%one (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %n = f32[2]{0} negate(%p)
}

%body (s: (f32[2])) -> (f32[2]) {
  %s = (f32[2]{0}) parameter(0)
  %x = f32[2]{0} get-tuple-element(%s), index=0
  %step = f32[2]{0} fusion(%x), kind=kLoop, calls=%one
  ROOT %t = (f32[2]{0}) tuple(%step)
}

%condition (s.1: (f32[2])) -> pred[] {
  %s.1 = (f32[2]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

%small (q: f32[2]) -> f32[2] {
  %q = f32[2]{0} parameter(0)
  ROOT %small.1 = f32[2]{0} fusion(%q), kind=kLoop, calls=%one
}

%large (r: f32[2]) -> f32[2] {
  %r = f32[2]{0} parameter(0)
  %large.1 = f32[2]{0} fusion(%r), kind=kLoop, calls=%one
  ROOT %large.2 = f32[2]{0} fusion(%large.1), kind=kLoop, calls=%one
}

ENTRY %main (a: f32[2], b: pred[]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  %b = pred[] parameter(1)
  %t.1 = (f32[2]{0}) tuple(%a)
  %while = (f32[2]{0}) while(%t.1), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"7"}}
  %y = f32[2]{0} get-tuple-element(%while), index=0
  %z = f32[2]{0} conditional(%b, %y, %y), true_computation=%small, false_computation=%large
  %called = f32[2]{0} call(%z), to_apply=%small
  %ag = ((f32[2]{0}), f32[4]{0}) all-gather-start(%called), dimensions={0}
  ROOT %agd = f32[4]{0} all-gather-done(%ag)
}
"""  # noqa: E501


def test_kernels_of_loops_calls_and_branches_count_as_often_as_they_run():
    found = kernels_of(LOOPS)
    assert [(k.kind, k.times, k.bytes) for k in found] == [
        ("step", 7, 16),
        ("large", 1, 16),
        ("large", 1, 16),
        ("small", 1, 16),
        ("all-gather-start", 1, 8 + 16),
    ]
    assert total_launches(found) == 7 + 2 + 1 + 1
    assert total_bytes(found) == (7 + 2 + 1) * 16 + 24


def test_sizes_of_types_are_those_of_all_their_arrays():
    assert nbytes(
        "(bf16[2,3]{1,0:T(8,128)}, /*index=1*/pred[5], s4[3], f8e4m3fn[4])"
    ) == (12 + 5 + 2 + 4)
    assert nbytes("f32[]") == 4 and nbytes("token[]") == 0
