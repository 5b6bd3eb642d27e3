"""Finds, checks, stacks and reads the files of DICOM CT series."""
