"""Slices on the page: offered where a volume is, drawn by the work, and drawn anew when asked."""

from __future__ import annotations

import base64
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from explorer.page import brain
from explorer.page.handlers import Handlers
from explorer.request import View
from tests.explorer.page.visits import PARTS, click, visit, work

LINK = {"trial": "test-04", "show": "noise ceiling"}


@pytest.fixture
def in_volume(make_workbench: Any, fakes: SimpleNamespace) -> Any:
    """Return handlers over a study whose voxels fill a volume and have no place on a surface."""

    class Volume(fakes.Study):
        def load(self, subject: str) -> Any:
            trials = super().load(subject)
            voxels = trials.subject.voxels
            mask = np.ones((voxels.n_voxels // 20, 5, 4), dtype=bool)
            atlases = {k: replace(a, surface=None) for k, a in voxels.parcellations.items()}
            affine = np.diag([4.0, 4, 4, 1])
            voxels = replace(
                *(voxels,), projection=None, mask=mask, affine=affine, parcellations=atlases
            )
            return replace(trials, subject=replace(trials.subject, voxels=voxels))

    bench = make_workbench(datasets={"fake": Volume})
    return Handlers(bench, SimpleNamespace(**{part: part for part in PARTS}), "plotly.js")


def test_a_volume_is_shown_in_slices_that_follow_the_threshold(in_volume: Any) -> None:
    session, updates = visit(in_volume, **LINK, surface="inflated")
    (notice,) = updates["notices"]["notices"]
    assert notice == "There is no surface “inflated”; using axial."
    assert session.view.surface == "axial"
    assert updates["brain"]["surfaces"] == ["axial", "coronal", "sagittal"]
    without = brain.alone(updates["brain"] | {"surfaces": ["pial", "native pial", "axial"]})
    assert without["surfaces"] == ["pial"] and without["files"] == []
    assert updates["brain"]["no_surface"] == "" and updates["brain"]["picture"] is None
    shown = [sent["brain"] for sent in work(in_volume, session) if "brain" in sent]
    (first,) = [sent["picture"] for sent in shown if sent["state"] == "done"]
    assert first["of"] == "axial" and first["hidden"] == ""
    assert first["note"].startswith("Slices at z = ")
    assert base64.b64decode(first["image"].partition(",")[2]).startswith(b"\x89PNG")
    in_volume.look(session, click(threshold="1000"))
    shown = [sent["brain"] for sent in work(in_volume, session) if "brain" in sent]
    assert shown[-1]["picture"]["hidden"] == "Not coloured below 1,000: 200 of 200 voxels."
    in_volume.look(session, click(camera="dorsal"))  # which says nothing of slices
    assert not [sent for sent in work(in_volume, session) if "brain" in sent]


def test_only_pictures_are_drawn_anew_for_another_threshold() -> None:
    seen, slices = View(), View(surface="axial")
    assert not brain.means_work(["threshold"], seen, replace(seen, threshold=1.0))
    assert brain.means_work(["threshold"], slices, replace(slices, threshold=1.0))
    assert brain.means_work(["surface"], slices, seen) and brain.means_work(["atlas"], seen, seen)
    assert not brain.means_work(["camera"], slices, replace(slices, camera="dorsal"))
