"""From voxels to parcels to the surface, and what rests on them."""
