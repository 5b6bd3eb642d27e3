"""DICOM CT series: finding, checking and stacking their files."""
