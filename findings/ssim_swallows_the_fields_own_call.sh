#!/usr/bin/env bash
# scikit-image 0.25.2, structural_similarity. The evaluation notebooks of brain-to-image decoding
# turn both pictures to grey (2-D arrays) and call it with multichannel=True, gaussian_weights,
# sigma 1.5, use_sample_covariance False and data_range 1. Up to 0.19 that argument made the last
# axis channels, with a warning that it would be removed: of a grey picture every column was scored
# as a one-dimensional channel, and their mean was printed as SSIM.
#
# Expected: once the argument is gone, the call is a TypeError, or it still scores columns.
# Observed: it is swallowed without a word, as is any keyword, also a misspelt one, and the score is
#   the ordinary two-dimensional SSIM. So the same line of the same notebook prints another score
#   than the published one; the old meaning is channel_axis=-1.
#
# Output when this was written:
#   as the notebooks call it: 0.8802
#   without the argument: 0.8802
#   columns as channels, what it once meant: 0.8657
#   gaussian_weights misspelt: 0.8984, warnings: 0
#
# Exits 1 if that has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet scikit-image==0.25.2 numpy==2.2.6 scipy==1.15.3 >/dev/null 2>&1
"$place/env/bin/python" - <<'END'
import warnings

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

rng = np.random.default_rng(0)
shown = gaussian_filter(rng.random((120, 160)), 3)
shown = (shown - shown.min()) / np.ptp(shown)
made = np.clip(shown + 0.1 * gaussian_filter(rng.standard_normal(shown.shape), 1), 0, 1)
told = {"sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    notebooks = structural_similarity(shown, made, multichannel=True, gaussian_weights=True, **told)
    plain = structural_similarity(shown, made, gaussian_weights=True, **told)
    columns = structural_similarity(shown, made, channel_axis=-1, gaussian_weights=True, **told)
    misspelt = structural_similarity(shown, made, gaussian_weight=True, **told)
print(f"as the notebooks call it: {notebooks:.4f}")
print(f"without the argument: {plain:.4f}")
print(f"columns as channels, what it once meant: {columns:.4f}")
print(f"gaussian_weights misspelt: {misspelt:.4f}, warnings: {len(said)}")
raise SystemExit(0 if notebooks == plain != columns and misspelt != plain and not said else 1)
END
