"""Our proxy beside others, in turns, on one core: see ../README.md."""
