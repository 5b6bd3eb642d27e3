"""The figures of a report, of a card whose numbers are round."""

from launch.compile_for.cards import Card
from launch.compile_for.kernels import Kernel
from launch.compile_for.report import of_gpu, table_of_kernels, table_of_parts

ROUND = Card(
    name="Round",
    compute_capability="9.0",
    bandwidth=2e12,  # a copy reaches 1.8e12
    dense_flop_per_s={"bfloat16": 100e12, "float32": 50e12},
    device={"device_memory_size": 10 * 2**30},
)


def _kernels():
    gate = "jit(train_step)/jvp(AttentionUNet3D)/gate_2/sub_gate_1/resize/mul"
    pool = "jit(train_step)/transpose(jvp(AttentionUNet3D))/max_pool/select_n"
    adam = "jit(train_step)/optimizer/add"
    return [
        Kernel("loop_multiply_fusion", gate, ((gate, 800_000_000),), False),
        Kernel("input_transpose_fusion", pool, ((pool, 900_000_000),), True),
        Kernel("loop_add_fusion", adam, ((adam, 50_000), (adam, 50_000)), False, 1000),
    ]


def _told(dtype: str) -> dict[str, str]:
    from attunet_jax.train.aot import Cost
    from launch.benchmark.flops import Work

    cost = Cost(2**30, 4 * 2**30, 5 * 2**30, None, {"all-reduce": (3, 2**20)})
    return of_gpu(ROUND, dtype, cost, Work(10**11, 10**9), _kernels())


def test_the_least_time_is_that_of_bytes_or_of_flop_whichever_is_longer():
    told = _told("bfloat16")
    # 0.8 + 0.9 + 1000 x 0.0001 GB at 1.8 TB/s; 100 GFLOP at 100 TFLOP/s.
    assert told["bytes a device"].startswith("1.80 GB a step; 1.00 GB are the least")
    assert told["time at least"].startswith("1.00 ms a step: bytes 1.00 ms")
    assert told[""].startswith("FLOP 1.00 ms at 100 TFLOP/s")
    told = _told("float32")
    assert told["time at least"].startswith("2.00 ms a step: bytes 1.00 ms")
    assert "FLOP 2.00 ms" in told[""] and "TF32" in told[""]


def test_kernels_transposes_memory_and_messages_are_those_of_the_step():
    told = _told("bfloat16")
    assert told["kernels"] == "1,002 a step, 1,000 of them move less than 1 MB"
    assert told["transposes"] == "1 kernels, 0.90 GB"
    assert (
        "5,120.0 alive at the peak, 50% of the card's 11 GB" in told["memory a device"]
    )
    assert told["all-reduce"] == "3 a step, 1.000 MiB a device"
    assert told["work a device"].startswith("100 GFLOP")


def test_parts_and_kernels_are_listed_by_what_they_move():
    rows = [
        line.split(maxsplit=4)
        for line in table_of_parts(ROUND, _kernels()).splitlines()
    ]
    assert [(row[0], row[1], row[2], row[3], row[4]) for row in rows[1:]] == [
        ("0.90", "50.0%", "0.50", "1", "resizing"),
        ("0.80", "44.4%", "0.44", "1", "attention gates"),
        ("0.10", "5.6%", "0.06", "1,000", "optimizer"),
    ]
    listed = table_of_kernels(_kernels(), 2).splitlines()[1:]
    assert listed[0].split()[:3] == ["900.0", "input_transpose_fusion", "(transposes)"]
    assert len(listed) == 2 and "| attention gates |" in listed[1]
