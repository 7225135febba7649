"""What `sweep` and `generate` share: options, one seed a condition."""

import pytest

from backends.generators.sampling import chosen
from explorer.protocols import Option
from explorer.types import UserError


def test_options_have_defaults_and_limits():
    options = (Option("kappa", 0, 1, 0.25, "How much."), Option("n", 1, 8, 1, "How many."))
    assert chosen("toy", options, {"n": 3}) == {"kappa": 0.25, "n": 3}
    with pytest.raises(UserError, match="toy has no option 'eta', it has kappa, n; leave it out"):
        chosen("toy", options, {"eta": 1})
    with pytest.raises(UserError, match="kappa lies between 0 and 1, found 1.5"):
        chosen("toy", options, {"kappa": 1.5})
