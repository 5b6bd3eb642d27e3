"""Finds the cases of a folder, for each layout that `--source` can name.

To add a layout, write a function like those below in its own file and add it to
`SOURCES`. It only returns where the cases are and what their label values mean.
`find_cases` calls it, and says so where the folder is one level too high or too low.
"""

from collections.abc import Callable
from pathlib import Path

from attunet_jax.errors import BadData
from data_prep.sources.amos import find_amos
from data_prep.sources.btcv import find_btcv
from data_prep.sources.kits import INNER, find_kits
from data_prep.sources.layout import Layout, case_folders
from data_prep.sources.msd import find_msd
from data_prep.sources.nifti import find_nifti
from data_prep.sources.nnunet import find_nnunet
from data_prep.sources.tcia_pancreas import find_tcia_pancreas
from data_prep.sources.totalsegmentator import find_totalsegmentator
from data_prep.wording import listed

SOURCES: dict[str, Callable[[Path], Layout]] = {
    "amos": find_amos,
    "btcv": find_btcv,
    "kits": find_kits,
    "msd": find_msd,
    "nifti": find_nifti,
    "nnunet": find_nnunet,
    "tcia_pancreas": find_tcia_pancreas,
    "totalsegmentator": find_totalsegmentator,
}


def _holds(*names: str) -> Callable[[Path], bool]:
    return lambda folder: any((folder / name).exists() for name in names)


# What a folder of the layout has: (in words, the test).
_MARKS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "amos": ("imagesTr", _holds("imagesTr", "amos22/imagesTr")),
    "btcv": (
        "Training or imagesTr",
        _holds("Training", "imagesTr", "RawData", "Abdomen", "data/imagesTr"),
    ),
    "kits": (
        "case_00000/imaging.nii.gz",
        lambda f: any(case_folders(p, "imaging") for p in (f, *(f / i for i in INNER))),
    ),
    "msd": ("dataset.json", _holds("dataset.json")),
    "nifti": ("images/", _holds("images")),
    "nnunet": ("dataset.json", _holds("dataset.json")),
    "totalsegmentator": (
        "CASE/ct.nii.gz",
        lambda folder: bool(case_folders(folder, "ct")),
    ),
}


def find_cases(source: str, folder: Path) -> Layout:
    """Returns the cases of `folder`, in the layout that `source` names.

    Raises `BadData` where it is none, with the folder above or below it that is one, or
    as the function of the layout does.
    """
    if source in _MARKS and folder.is_dir():
        what, is_root = _MARKS[source]
        if not is_root(folder):
            if hint := _other_level(folder.absolute(), is_root, str(folder)):
                raise BadData(f"{folder}: has no {what}; {hint}")
    return SOURCES[source](folder)


def _other_level(
    folder: Path, is_root: Callable[[Path], bool], given: str
) -> str | None:
    """Says which folder above or below has what `folder` lacks."""
    absolute = Path(given).is_absolute()
    for above in list(folder.parents)[:2]:
        if is_root(above):
            shown = Path(given).parent if folder.parent == above else above
            shown = above if absolute or str(shown) == "." else shown
            return f"give the folder above: --input={shown}"
    below = [
        place
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".") and is_root(place)
    ]
    if len(below) == 1:
        return f"give the folder in it: --input={Path(given) / below[0].name}"
    if below:
        return f"give one of its folders: {listed([place.name for place in below])}"
    return None
