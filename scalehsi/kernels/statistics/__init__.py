"""Statistics of a block of pixels, random division of counts, and random numbers that depend on the pixel alone."""
