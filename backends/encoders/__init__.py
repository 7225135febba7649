"""Images to predicted betas."""
