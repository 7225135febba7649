#!/usr/bin/env bash
# nilearn 0.12.1, plot_glass_brain with display_mode "lr" (also "lyr", "lyrz" and the like): "l" is
# the left hemisphere seen from its side, "r" the right one, each without the other's voxels.
#
# Expected: a voxel whose centre lies left of the midline (x < 0) is seen in "l" and not in "r".
# Observed: the hemispheres are parted at int(index of x = 0). Where x = 0 falls between two voxels,
#   that index is rounded down, and the column left of the midline is drawn in "r" and missing in
#   "l": up to a whole voxel, 4 mm here, on the wrong side, without a word. Grids with a voxel
#   centre at x = 0 (MNI's at 1 and 2 mm) are parted rightly, so a test on the template passes.
#
# Output when this was written:
#   grid of 2 mm with a centre at x = 0, voxel at x = -2: seen in l
#   grid of 4 mm with centres at x = -2 and 2, voxel at x = -2: seen in r
#
# Exits 1 if that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet nilearn==0.12.1 scikit-learn==1.7.2 nibabel==5.3.2 \
  numpy==2.2.6 scipy==1.15.3 matplotlib==3.10.3 >/dev/null 2>&1
"$place/env/bin/python" - <<'END'
import warnings

warnings.filterwarnings("ignore")
import matplotlib

matplotlib.use("Agg")
import nibabel as nib
import numpy as np
from nilearn.plotting import plot_glass_brain


def seen(step, first, where):
    """Return the views in which a single voxel at x = where is drawn."""
    xs = first + step * np.arange(int(2 * -first / step) + 1)
    affine = np.diag([step, 4.0, 4.0, 1.0])
    affine[:3, 3] = first, -134, -72
    data = np.zeros((len(xs), 58, 48))
    data[np.flatnonzero(xs == where)[0], 20, 20] = 5
    drawn = plot_glass_brain(
        nib.Nifti1Image(data, affine), display_mode="lr", colorbar=False, threshold=0.1
    )
    return [
        name
        for name, axes in drawn.axes.items()
        if any(np.nan_to_num(np.ma.filled(i.get_array(), 0)).any() for i in axes.ax.images)
    ]


fine, coarse = seen(2.0, -90.0, -2.0), seen(4.0, -98.0, -2.0)
print("grid of 2 mm with a centre at x = 0, voxel at x = -2: seen in", *fine)
print("grid of 4 mm with centres at x = -2 and 2, voxel at x = -2: seen in", *coarse)
raise SystemExit(0 if fine == ["l"] and coarse == ["r"] else 1)
END
