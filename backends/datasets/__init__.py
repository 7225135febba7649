"""Data sets as they lie on disk, one module per format; ``layout`` reads the plain folder."""
