"""`2` or `2,1.5,1.5` as a user types it in, the spacing D, H, W in mm out."""

import argparse


def parse_spacing(text: str) -> tuple[float, float, float]:
    """For argparse: raises `ArgumentTypeError` saying what is wanted."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(0.1 <= n <= 50 for n in numbers):
        raise argparse.ArgumentTypeError("one or three numbers from 0.1 to 50")
    return numbers[0], numbers[1], numbers[2]
