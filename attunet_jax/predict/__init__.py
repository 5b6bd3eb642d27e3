"""A trained network on whole scans: scan in, label map on the scan's own grid out."""
