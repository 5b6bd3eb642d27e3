"""A look at every case before any work: measurements, problems, pictures, a page."""
