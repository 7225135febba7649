"""Values that are not defined: told, counted as failed, and never a way to a better mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backends.reports.feature_networks import NETWORKS, Features, resized
from backends.reports.likeness import Pictures, correlations, frechet, identified, two_way
from backends.reports.scores import SCORES, STAND_INS, Score, measure
from explorer.types import UserError

BY_ID = {score.id: score for score in (*SCORES, *STAND_INS)}
OF_PIXELS = ("pixcorr-425", "ssim-grey-425", "mse-two-way", "pcc-two-way", "ssim-two-way")


def pictures(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((n, 3, 6, 6), np.float32))
    fine = torch.nn.functional.interpolate(coarse, 48, mode="bilinear")
    return list((fine.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8))


def noisy(images: list[np.ndarray]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.clip(i + rng.normal(0, 60, i.shape), 0, 255).astype(np.uint8) for i in images]


def values(shown, made, *ids):
    _, table, missing = measure(shown, [made], Features(), scores=[BY_ID[i] for i in ids])
    assert not missing
    return table.set_index("id")


def test_black_pictures_never_raise_a_mean():
    shown = pictures(4)
    made = noisy(shown)
    whole = values(shown, made, *OF_PIXELS)
    apart = [np.abs(a.astype(float) - b).mean() for a, b in zip(shown, made, strict=True)]
    black = [np.zeros_like(m) if i in np.argsort(apart)[2:] else m for i, m in enumerate(made)]
    half = values(shown, black, *OF_PIXELS)
    assert (whole["undefined"] == 0).all() and (whole["remark"] == "").all()
    assert (half["value"] < whole["value"]).all() and (half["N"] == 4).all()
    assert (half["low"] <= half["value"]).all() and (half["value"] <= half["high"]).all()


def test_a_mean_says_how_many_values_are_undefined_and_what_they_count_as():
    shown = pictures(4)
    made = [shown[0], np.zeros_like(shown[1]), shown[2], np.full_like(shown[3], 200)]
    table = values(shown, made, "pixcorr-425", "pcc-two-way", "ssim-grey-425")
    line = table.loc["pixcorr-425"]
    assert line["value"] == pytest.approx(0.5) and line["undefined"] == 2
    assert line["remark"] == (
        "2 of 4 values are undefined (a picture of one colour) and count as 0."
    )
    assert table.loc["pcc-two-way", "value"] == pytest.approx(0.5)
    assert table.loc["pcc-two-way", "undefined"] == 2
    assert table.loc["ssim-grey-425", "undefined"] == 0


def test_the_best_sample_of_a_picture_is_one_that_is_defined():
    shown = pictures(3)
    black = [np.zeros_like(one) for one in shown]
    rows, table, _ = measure(shown, [black, shown], Features(), scores=[BY_ID["pixcorr-425"]])
    line = table.iloc[0]
    assert (line["value"], line["best of samples"]) == (pytest.approx(0.5), pytest.approx(1))
    assert line["undefined"] == 3 and "3 of 6 values" in line["remark"]
    first = rows[rows["sample"] == 0]
    assert first["value"].isna().all() and (first["counted"] == 0).all()


def test_an_undefined_similarity_is_a_failed_comparison():
    rng = np.random.default_rng(0)
    shown = rng.standard_normal((5, 20))
    made = shown + 0.01 * rng.standard_normal((5, 20))
    np.testing.assert_array_equal(identified(made, shown), np.ones(5))
    made[1] = np.nan
    made[3] = 7.0  # constant: it correlates with nothing
    np.testing.assert_array_equal(identified(made, shown), [1, np.nan, 1, np.nan, 1])
    shown[0, 2] = np.inf  # nothing can be nearer to its own than to this one
    np.testing.assert_array_equal(identified(made, shown), [np.nan, np.nan, 0.75, np.nan, 0.75])
    one = np.tile(rng.standard_normal(20), (5, 1))  # one answer for all: ties, at chance
    good = rng.standard_normal((5, 20))
    assert identified(one, good).mean() == pytest.approx(0.5)


def test_features_that_are_not_finite_fail_every_score_made_of_them():
    shown, made = pictures(4), pictures(4)

    def broken(images):
        rows = np.stack([resized([one], 8)[0].ravel().numpy() for one in images])
        rows[[bool((one == 0).all()) for one in images]] = np.nan
        return rows

    made[2] = np.zeros_like(made[2])
    distance = Score("d", "d", False, None, "", per_item=_distance, undefined_as=1.0)
    rate = Score("t", "t", True, 0.5, "", per_item=two_way("f"))
    fid = Score("fid", "FID", False, None, "", features=("grid", ""))
    features = Features(functions={"f": broken, "grid": lambda i: broken(i)[:, :, None, None]})
    _, table, missing = measure(shown, [made], features, scores=[distance, rate, fid])
    table = table.set_index("id")
    assert table.loc["d", "value"] == pytest.approx(0.25) and table.loc["d", "undefined"] == 1
    assert table.loc["t", "value"] == pytest.approx(0.75) and table.loc["t", "undefined"] == 1
    assert "features of some are not finite" in missing["fid"]
    assert BY_ID["effnet-b1-distance"].undefined_as == BY_ID["swav-distance"].undefined_as == 1


def _distance(shown, made):
    return 1 - correlations(made.feature("f"), shown.feature("f"))


def test_a_class_that_is_not_known_is_not_the_right_one():
    logits = np.random.default_rng(0).standard_normal((2, 60))
    shown, made = Pictures([], Features()), Pictures([], Features())
    shown._found["vit-h-14"] = {"heads": logits}
    made._found["vit-h-14"] = {"heads": np.where([[True], [False]], logits, np.nan)}
    found = BY_ID["50-way-top-1"].per_item(shown, made)
    assert found[0] == 1 and np.isnan(found[1]) and BY_ID["50-way-top-1"].undefined_as == 0


# ---------------------------------------------------------------------------------- Inception


@pytest.fixture
def inception(tmp_path):
    """Write random weights of the published network's architecture, and return that network."""
    from torchvision import models

    torch.manual_seed(0)
    # what `inception_v3(weights=...)` of torchvision makes of its published weights
    network = models.inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    for module in network.modules():  # features of a size that is told apart
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.save(network.state_dict(), tmp_path / NETWORKS["inception"].file)
    return network


def test_inception_is_the_function_of_torchvisions_published_weights(inception, tmp_path):
    from torchvision.models import Inception_V3_Weights, inception_v3

    source = Inception_V3_Weights.IMAGENET1K_V1
    assert source.url.endswith(NETWORKS["inception"].file)
    seen = {}

    class Stopped(Exception):
        pass

    def made(*arguments, **settings):
        seen.update(settings)
        raise Stopped

    # torchvision switches the transform on by itself wherever weights are given
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("torchvision.models.inception.Inception3", made)
        inception_v3(weights=source)
    assert seen["transform_input"] is True
    images = pictures(1)
    (found,) = Features(tmp_path).of("inception", images).values()
    mean, sd = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    given = (resized(images, 256, 342) - mean[:, None, None]) / sd[:, None, None]
    pooled = []
    inception.avgpool.register_forward_hook(lambda *called: pooled.append(called[2].numpy()))
    with torch.inference_mode():
        inception(given)
        inception.transform_input = False
        inception(given)
    size = np.abs(pooled[0]).max()
    np.testing.assert_allclose(found / size, pooled[0] / size, atol=1e-4)
    assert np.abs(found - pooled[1]).max() / size > 0.02


def test_of_a_frechet_distance_no_picture_can_be_left_out():
    rows = np.random.default_rng(0).standard_normal((5, 3))
    with pytest.raises(UserError, match="of all pictures, and features of some are not finite"):
        frechet(rows, np.where(np.arange(5)[:, None] == 1, np.nan, rows))


def test_tables_of_guidance_count_an_undefined_score_as_zero_and_say_so():
    from backends.reports.ablations import table as ablated
    from backends.reports.guidance import REFERENCE, table

    scores = {
        REFERENCE: {"PixCorr": np.array([0.5, 0.5])},
        "scale 8": {"PixCorr": np.array([0.8, np.nan])},
    }
    rows = table(scores).set_index("pictures")
    assert rows.loc["scale 8", "PixCorr"].startswith("0.400 (-0.100 [")
    said = "PixCorr: 1 of 2 values is undefined and counts as 0."
    assert rows.loc["scale 8", "undefined"] == said and (rows["N"] == 2).all()
    rows = ablated(scores, dict.fromkeys(scores, REFERENCE)).set_index("pictures")
    assert (
        rows.loc["scale 8", "PixCorr"].startswith("0.400 [") and rows["undefined"].iloc[1] == said
    )
    assert "undefined" not in table({REFERENCE: scores[REFERENCE]})


def test_an_embedding_that_is_not_finite_carries_no_figure():
    from backends.reports.study import finite

    rows = np.ones((3, 2))
    assert finite(rows, "subj01") is rows
    rows[1, 0] = np.nan
    with pytest.raises(UserError, match="1 of 3 decoded embeddings of subj01 are not finite, so"):
        finite(rows, "subj01")
