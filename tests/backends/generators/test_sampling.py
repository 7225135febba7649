"""What `sweep` and `generate` share: options, and no picture of what is no number."""

from pathlib import Path

import pytest
import torch

from backends import GENERATORS
from backends.generators.sampling import chosen, pixels
from explorer.protocols import Condition, Option
from explorer.types import UserError, resolve

CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"
DRAWING = [name for name in GENERATORS if name != "published"]  # which shows what was drawn before


def test_options_have_defaults_and_limits():
    options = (Option("kappa", 0, 1, 0.25, "How much."), Option("n", 1, 8, 1, "How many."))
    assert chosen("toy", options, {"n": 3}) == {"kappa": 0.25, "n": 3}
    with pytest.raises(UserError, match="toy has no option 'eta', it has kappa, n; leave it out"):
        chosen("toy", options, {"eta": 1})
    with pytest.raises(UserError, match="kappa lies between 0 and 1, found 1.5"):
        chosen("toy", options, {"kappa": 1.5})


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_was_decoded_as_no_number_is_refused_not_drawn_black(
    name, value, made, fakes, tmp_path, monkeypatch
):
    monkeypatch.setenv("AFTERIMAGE_CACHE", str(tmp_path))
    cls = resolve(GENERATORS[name])
    generator = made[name] if name in made else cls(CHECKPOINTS)
    study = fakes.Study()
    trial = {"dataset": study, "subject": study.load("sub-01").subject}
    # sd15-label is made with a gallery that what ships can embed
    space = cls.accepts[-1 if name == "sd15-label" else 0]
    decoded = torch.randn(space.shape)
    decoded.view(-1)[space.size // 2] = value
    said = f"{name} draws nothing from {space.name}: 1 of its {space.size} decoded values are NaN"
    with pytest.raises(UserError, match=said):
        generator.generate([Condition({space: decoded}, **trial)], 2.0, [0], 2)
    with pytest.raises(UserError, match=said):
        next(generator.sweep(Condition({space: decoded}, **trial), (2.0,), 2, 0))


def test_numbers_that_grew_too_large_are_refused_not_shown_black():
    decoded = torch.zeros(2, 3, 4, 4)
    assert pixels(decoded).shape == (2, 4, 4, 3)
    decoded[1, 2, 3, 3] = float("nan")
    with pytest.raises(UserError, match="came out as NaN or infinite: .* draw on a CPU"):
        pixels(decoded)
