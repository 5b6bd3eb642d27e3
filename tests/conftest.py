"""What every test runs on: eight simulated CPU devices and the optional shared data."""

import os
from pathlib import Path

# Before jax is imported anywhere: the device count is fixed at its first use.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import pytest  # noqa: E402
from absl import flags  # noqa: E402

# Grain asks absl for flags even where no program has parsed any.
flags.FLAGS.mark_as_parsed()

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real scans and reference figures kept beside a developer's checkout."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no folder shared/ with real data beside this checkout")
    return SHARED
