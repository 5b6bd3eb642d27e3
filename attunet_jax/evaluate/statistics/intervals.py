"""The interval of a mean over cases: Student's t, or BCa bootstrap by option.

Student's interval of a mean keeps its 95 % on Dice values from about 50 cases on, and
then is close to the bootstrap's (arXiv 2307.10926). With fewer, neither does: programs
say so. A median gets no interval here.
"""

import warnings

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
UNRELIABLE_BELOW = 50  # cases
METHODS = ("t", "bca")
RESAMPLES = 9999

Interval = tuple[float | None, float | None]


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns low and high of Student's interval of the mean.

    Args:
      values: `[..., n]` with n of 2 or more.
    """
    values = np.asarray(values, float)
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * deviation(values) / np.sqrt(n)
    return mean - half, mean + half


def deviation(values: np.ndarray) -> np.ndarray:
    """Returns the sample deviation (n - 1) over the last axis; 0 for equal values."""
    spread = np.std(values, axis=-1, ddof=1)
    return np.where(np.ptp(values, axis=-1) == 0, 0.0, spread)


def mean_interval(values: np.ndarray, method: str = "t", seed: int = 0) -> Interval:
    """Returns the interval of the mean; (None, None) below two values.

    Args:
      values: `[n]`.
      method: one of METHODS; "bca" is the bias-corrected, accelerated bootstrap.
      seed: of the bootstrap.
    """
    values = np.asarray(values, float)
    if values.size < 2:
        return None, None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    if method == "t":
        low, high = t_interval(values)
    elif method == "bca":
        low, high = _bca(values, seed)
    else:
        raise ValueError(f"interval {method!r}: must be one of {', '.join(METHODS)}")
    return float(low), float(high)


def _bca(values: np.ndarray, seed: int) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (values,),
            np.mean,
            vectorized=True,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return found.low, found.high
