"""What an import left out, and whether a fault ends it."""

from collections import Counter

from kneessl.errors import UserError


class Notes:
    """Collects what was left out; never a path or an identity.

    Args:
        skip_faulty: note a fault and go on, instead of ending the import with it.
    """

    def __init__(self, skip_faulty: bool = False) -> None:
        self.skip_faulty = skip_faulty
        self.left_out: Counter[str] = Counter()

    def leave_out(self, what: str, count: int = 1) -> None:
        """Note something that was never meant for the exam folder, such as a localiser."""
        self.left_out[what] += count

    def fault(self, error: UserError) -> None:
        """Note something that should have been read and could not be.

        Raises:
            UserError: the same, unless faults are to be skipped.
        """
        if not self.skip_faulty:
            raise error
        self.leave_out(str(error))

    def __str__(self) -> str:
        return "; ".join(f"{what} ({count})" for what, count in sorted(self.left_out.items()))
