"""What every refusal of a study has in common."""

import pytest

from kneessl.errors import UserError
from kneessl.reader.intake.intake import Limits, files_of

PLANTED = "Quaxolotl^Zyphira"
"""In the names and contents of what is refused."""
SMALL = Limits(files=5, bytes=1000, file_bytes=600)


def refused(source: object, match: str, limits: Limits = SMALL) -> None:
    """`files_of` refuses it with one sentence that quotes nothing."""
    with pytest.raises(UserError, match=match) as error, files_of(str(source), limits):
        pytest.fail("it was taken in")
    assert "Quaxolotl" not in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None
