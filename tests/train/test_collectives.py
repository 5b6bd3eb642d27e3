"""Lines as XLA prints them, for CPU and TPU, read by hand."""

from attunet_jax.train.aot import collectives_of

HLO = """
HloModule jit_step, entry_computation_layout={(f32[8,4]{1,0})->f32[]}
  %collective-permute.7 = f32[1,2,80,80,4]{4,3,2,1,0} collective-permute(%a), channel_id=1, metadata={op_name="jit(step)/encoder_1/conv"}
  %all-reduce.1 = (f32[4]{0}, /*index=1*/bf16[3,3,3,1,4]{4,3,2,1,0}, s32[]) all-reduce(%b, %c, %d), to_apply=%sum
  %cp = (f32[1,34,64]{2,1,0:T(8,128)}, f32[1,34,64]{2,1,0:T(8,128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(f32[1,34,64] %e), metadata={op_name="halo"}
  %done = f32[1,34,64]{2,1,0} collective-permute-done(%cp)
  %ag = (pred[2,8]{1,0}, pred[8,8]{1,0}) all-gather-start(%f), dimensions={0}
  %two = ((f32[1,5]{1,0}, f32[2,7]{1,0}), (f32[1,5]{1,0}, f32[2,7]{1,0}), u32[]) collective-permute-start(%i, %j)
  %ars = ((bf16[3,2]{1,0}, f32[]), (bf16[3,2]{1,0}, f32[])) all-reduce-start(%k, %l)
  %ata.3 = (f32[2]{0}, f32[2]{0}) all-to-all(%g, %h)
  %fusion = f32[8] fusion(%all-gather.1, %all-reduce), calls=%computation
"""  # noqa: E501


def test_kind_shapes_bytes_and_source_of_each_exchange_are_read():
    permute, reduction, started, gather, two, sums, exchange = collectives_of(HLO)
    assert permute.kind == "collective-permute"
    assert permute.arrays == (("f32", (1, 2, 80, 80, 4)),)
    assert permute.bytes == 2 * 80 * 80 * 4 * 4
    assert permute.source == "jit(step)/encoder_1/conv"
    assert reduction.arrays == (
        ("f32", (4,)),
        ("bf16", (3, 3, 3, 1, 4)),
        ("s32", ()),
    )
    assert reduction.bytes == 4 * 4 + 108 * 2 + 4
    assert (started.kind, started.bytes) == ("collective-permute", 34 * 64 * 4)
    assert gather.arrays == (("pred", (8, 8)),)
    assert gather.bytes == 64
    assert two.arrays == (("f32", (1, 5)), ("f32", (2, 7)))
    assert sums.arrays == (("bf16", (3, 2)), ("f32", ()))
    assert (exchange.kind, exchange.bytes) == ("all-to-all", 16)
    assert str(gather) == "all-gather of pred[8,8] in ?"
