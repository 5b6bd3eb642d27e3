"""What memory a program needs, and what memory a device has."""
