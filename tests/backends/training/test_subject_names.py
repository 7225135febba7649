"""A subject's name becomes part of a folder's."""

from dataclasses import replace

import pytest

from backends.mappers.ridge import Ridge
from backends.training.mapper_training import train_mapper
from explorer.types import UserError
from tests.backends.training.toy import study


@pytest.mark.parametrize("name", ["sub/01", "sub\\01"])
def test_a_name_with_a_slash_is_refused_before_anything_is_learned(tmp_path, name):
    trials, targets, _ = study()
    one = replace(trials[0], subject=replace(trials[0].subject, name=name))
    with pytest.raises(UserError, match="which has a slash; rename the subject"):
        train_mapper("ridge", Ridge, one, targets, tmp_path / "a", command="x", licence="CC0")
    assert not one.betas.asked and not list(tmp_path.iterdir())
