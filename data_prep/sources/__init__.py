"""Where the scans of each known layout lie: a folder in, pairs of files out.

To add a layout, write a function like those below in a file of its own and name it in
`SOURCES`. It says where cases are and which label values mean what; nothing else.
"""

from data_prep.sources.nifti import find_nifti
from data_prep.sources.nnunet import find_nnunet

SOURCES = {"nifti": find_nifti, "nnunet": find_nnunet}
