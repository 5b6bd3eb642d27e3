"""Parts of `verify`: measurements, problems, suggested fixes, pictures, a page."""
