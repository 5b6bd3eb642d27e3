"""Tables 1 to 4 of the paper as data: networks, quantities and printed numbers.

Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas" (2018),
section 3. CT-150 is private, so Tables 1 and 2 can be compared with, not reproduced.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A metric of an organ, or of the network itself (organ "")."""

    label: str
    organ: str
    metric: str  # one of metrics.METRICS, "parameters" or "inference_s"


@dataclass(frozen=True)
class Number:
    """A printed number; bold is the paper's mark of statistical significance."""

    mean: float
    std: float | None
    bold: bool


@dataclass(frozen=True)
class Entry:
    """One trained network of a table; numbers in the order of the quantities."""

    network: str  # name of the config: configs/<network>.py
    # Name of our split; in Table 3 the stage (bft, aft, scr), in Table 4 5_fold.
    split: str
    label: str
    paper_split: str  # training/test cases in the paper
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Published:
    """A published method in Table 4, of which we train nothing."""

    label: str
    data: str
    dice: Number  # of the pancreas
    paper_split: str  # training/test cases
    folds: str


@dataclass(frozen=True)
class PaperTable:
    number: int
    title: str
    data: str  # what the paper tested on
    corner: str  # the heading above the names of the rows
    quantities: tuple[Quantity, ...]
    entries: tuple[Entry, ...]
    entries_are_columns: bool  # in Table 1; the others have an entry a row
    published: tuple[Published, ...] = ()  # in Table 4

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.split for entry in self.entries))


def _numbers(text: str) -> list[tuple[Number, ...]]:
    """Parses lines of "mean deviation | *mean deviation | mean", a star for bold."""
    return [tuple(map(_number, line.split("|"))) for line in text.strip().splitlines()]


def _number(cell: str) -> Number:
    mean, *std = cell.replace("*", " ").split()
    return Number(float(mean), float(std[0]) if std else None, bold="*" in cell)


def _entries(
    names: Iterable[tuple[str, str, str, str]], numbers: Iterable[tuple[Number, ...]]
) -> tuple[Entry, ...]:
    pairs = zip(names, numbers, strict=True)
    return tuple(Entry(*name, numbers=of_entry) for name, of_entry in pairs)


def _pancreas(*labels: str) -> tuple[Quantity, ...]:
    metrics = ("dice", "precision", "recall", "surface_distance_mm")
    return tuple(
        Quantity(label, "pancreas", metric)
        for label, metric in zip(labels, metrics, strict=True)
    )


# A line a quantity, a column an entry, as printed.
_NUMBERS_1 = _numbers("""
0.814 0.116 | *0.840 0.087 | 0.741 0.137 | *0.767 0.132
0.848 0.110 |  0.849 0.098 | 0.789 0.176 | *0.794 0.150
0.806 0.126 | *0.841 0.092 | 0.743 0.179 | *0.762 0.145
2.358 1.464 | *1.920 1.284 | 3.765 3.452 |  3.507 3.814
0.962 0.013 |  0.965 0.013 | 0.935 0.095 | *0.943 0.092
0.963 0.013 |  0.964 0.016 | 0.951 0.019 |  0.954 0.021
5.88e6      |  6.40e6      | 5.88e6      |  6.40e6
0.167       |  0.179       | 0.167       |  0.179
""")

_TABLE_1 = PaperTable(
    number=1,
    title="Multi-class CT abdominal segmentation",
    data="CT-150 (150 scans, private)",
    corner="Method (Train/Test Split)",
    quantities=(
        *_pancreas(
            "Pancreas DSC",
            "Pancreas Precision",
            "Pancreas Recall",
            "Pancreas S2S Dist (mm)",
        ),
        Quantity("Spleen DSC", "spleen", "dice"),
        Quantity("Kidney DSC", "kidney", "dice"),
        Quantity("Number of Params", "", "parameters"),
        Quantity("Inference Time", "", "inference_s"),
    ),
    entries=_entries(
        (
            ("unet", "80_20", "U-Net", "120/30"),
            ("attention_unet", "80_20", "Att U-Net", "120/30"),
            ("unet", "20_80", "U-Net", "30/120"),
            ("attention_unet", "20_80", "Att U-Net", "30/120"),
        ),
        zip(*_NUMBERS_1, strict=True),
    ),
    entries_are_columns=True,
)

_TABLE_2 = PaperTable(
    number=2,
    title="U-Nets of higher capacity",
    data="CT-150 (150 scans, private)",
    corner="Method",
    quantities=(
        *_pancreas("Panc. DSC", "Panc. Precision", "Panc. Recall", "S2S Dist (mm)"),
        Quantity("# of Pars", "", "parameters"),
        Quantity("Run Time", "", "inference_s"),
    ),
    entries=_entries(
        (
            ("unet_wide", "80_20", "U-Net, wide", "120/30"),
            ("unet_huge", "80_20", "U-Net, huge", "120/30"),
        ),
        _numbers("""
0.821 0.119 | 0.849 0.111 | 0.814 0.125 | 2.383 1.918 |  6.44e6 | 0.191
0.825 0.104 | 0.861 0.082 | 0.807 0.121 | 2.202 1.144 | 10.40e6 | 0.222
"""),
    ),
    entries_are_columns=False,
)

_TABLE_3 = PaperTable(
    number=3,
    title="Segmentation of another source, before (BFT) and after (AFT) fine tuning "
    "and from scratch (SCR)",
    data="TCIA Pancreas-CT (82 scans)",
    corner="Method",
    quantities=_pancreas("Dice Score", "Precision", "Recall", "S2S Dist (mm)"),
    entries=_entries(
        (
            ("unet", "bft", "BFT U-Net", "61/21"),
            ("attention_unet", "bft", "BFT Attention U-Net", "61/21"),
            ("unet", "aft", "AFT U-Net", "61/21"),
            ("attention_unet", "aft", "AFT Attention U-Net", "61/21"),
            ("unet", "scr", "SCR U-Net", "61/21"),
            ("attention_unet", "scr", "SCR Attention U-Net", "61/21"),
        ),
        _numbers("""
 0.690 0.132 | 0.680 0.109 |  0.733 0.190 |  6.389 3.900
*0.712 0.110 | 0.693 0.115 | *0.751 0.149 | *5.251 2.551
 0.820 0.043 | 0.824 0.070 |  0.828 0.064 |  2.464 0.529
*0.831 0.038 | 0.825 0.073 | *0.840 0.053 | *2.305 0.568
 0.815 0.068 | 0.815 0.105 |  0.826 0.062 |  2.576 1.180
 0.821 0.057 | 0.815 0.093 | *0.835 0.057 | *2.333 0.856
"""),
    ),
    entries_are_columns=False,
)

# The test cases of fold_1 to fold_5, each scored by the network of its own fold.
CROSS_VALIDATION = "5_fold"
FOLDS = 5


def _published(text: str) -> tuple[Published, ...]:
    """Parses lines of "method | data | mean deviation | train/test | folds"."""
    lines = [map(str.strip, line.split("|")) for line in text.strip().splitlines()]
    return tuple(
        Published(label, data, _number(dice), split, folds)
        for label, data, dice, split, folds in lines
    )


# The caption of the paper's Table 4 calls all of these but the first CT-82; its text
# gives the last row of the paper's own network.
_TABLE_4 = PaperTable(
    number=4,
    title="5-fold cross-validation",
    data="TCIA Pancreas-CT (CT-82, 82 scans)",
    corner="Method",
    quantities=(Quantity("Pancreas DSC", "pancreas", "dice"),),
    entries=_entries(
        (("attention_unet", CROSS_VALIDATION, "Attention U-Net", "5-CV"),),
        _numbers("0.8148 0.0623"),
    ),
    entries_are_columns=False,
    published=_published("""
Hierarchical 3D FCN [27] | CT-150 | 0.822 0.102 | Ext/150 | -
Dense-Dilated FCN [6] | CT-82 & Synapse | 0.660 0.100 | 63/9 | 5-CV
2D U-Net [8] | CT-82 | 0.757 0.090 | 66/16 | 5-CV
Holistically Nested 2D FCN Stage-1 [26] | CT-82 | 0.768 0.111 | 62/20 | 4-CV
Holistically Nested 2D FCN Stage-2 [26] | CT-82 | 0.812 0.073 | 62/20 | 4-CV
2D FCN [4] | CT-82 | 0.803 0.090 | 62/20 | 4-CV
2D FCN + Recurrent Network [4] | CT-82 | 0.823 0.067 | 62/20 | 4-CV
Single Model 2D FCN [38] | CT-82 | 0.757 0.105 | 62/20 | 4-CV
Multi-Model 2D FCN [38] | CT-82 | 0.822 0.057 | 62/20 | 4-CV
"""),
)

TABLES = {table.number: table for table in (_TABLE_1, _TABLE_2, _TABLE_3, _TABLE_4)}
# The two networks that the paper compares with each other on each split.
COMPARED = ("unet", "attention_unet")
