"""Finds the cases of a folder, for each layout that `--source` can name.

To add a layout, write a function like those below in its own file and add it to
`SOURCES`. It only returns where the cases are and what their label values mean.
"""

from data_prep.sources.amos import find_amos
from data_prep.sources.btcv import find_btcv
from data_prep.sources.msd import find_msd
from data_prep.sources.nifti import find_nifti
from data_prep.sources.nnunet import find_nnunet
from data_prep.sources.tcia_pancreas import find_tcia_pancreas
from data_prep.sources.totalsegmentator import find_totalsegmentator

SOURCES = {
    "amos": find_amos,
    "btcv": find_btcv,
    "msd": find_msd,
    "nifti": find_nifti,
    "nnunet": find_nnunet,
    "tcia_pancreas": find_tcia_pancreas,
    "totalsegmentator": find_totalsegmentator,
}
