"""What the program knows of a study, and what reporting guidelines ask of it."""
