"""What passes between the rooms."""

import pytest

from explorer.protocols import Option
from explorer.types import UserError


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (2.5, "n lies between 1 and 2, found 2.5"),
        (float("nan"), "n lies between 1 and 2, found nan"),
        (1.5, "n is a whole number, found 1.5"),
    ],
)
def test_an_option_refuses_what_it_does_not_take(value, sentence):
    option = Option("n", 1, 2, 1, "A number.", whole=True)
    option.check(2.0)
    with pytest.raises(UserError, match=f"^{sentence}.$"):
        option.check(value)
