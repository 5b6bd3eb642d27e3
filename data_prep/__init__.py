"""Turns CT scans into the data set of a training: `python -m data_prep`."""

import launch  # noqa: F401 - ends the program where packages are not installed
