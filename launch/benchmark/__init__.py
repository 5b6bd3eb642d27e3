"""One program that measures this project and other libraries: `__main__.py`."""
