"""What an import left out, and whether a fault ends it."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Set

from kneessl.errors import UserError

_FILE = re.compile(r"\bfile (\d+) of \d+")


class Notes:
    """Collects what was left out; never a path or an identity.

    Args:
        skip_faulty: note a fault and go on, instead of ending the import with it.
    """

    def __init__(self, skip_faulty: bool = False) -> None:
        self.skip_faulty = skip_faulty
        self.left_out: Counter[str] = Counter()
        self.assumed: Counter[str] = Counter()
        """What was taken for granted, since the files do not say it."""
        self.faults = 0
        """Among them, how many things should have been read and could not be."""
        self._of_study: dict[str, Counter[str]] = defaultdict(Counter)

    def leave_out(self, what: str, count: int = 1, study: str = "") -> None:
        """Note something that was never meant for the exam folder, such as a localiser.

        Args:
            what: A plural noun phrase, or an error's sentence.
            count: How many.
            study: StudyInstanceUID, where it is known.
        """
        self.left_out[what] += count
        self._of_study[study][what] += count

    def assume(self, what: str, count: int = 1) -> None:
        """Note what was taken for granted; `what` as in `leave_out`. Nothing where the count is 0."""
        if count:
            self.assumed[what] += count

    def fault(self, error: UserError, study: str = "") -> None:
        """Note something that should have been read and could not be.

        Raises:
            UserError: the same, unless faults are to be skipped.
        """
        if not self.skip_faulty:
            raise error
        self.faults += 1
        self.leave_out(str(error), study=study)

    def of_study(self, study: str) -> tuple[str, ...]:
        """What was left out of one study, and what no study can be told of, each with its count."""
        return _lines(self._of_study[study] + self._of_study[""])

    def of_other_studies(self, studies: Set[str]) -> tuple[str, ...]:
        """What was left out of any study but these, each with its count."""
        return _lines(sum((counts for study, counts in self._of_study.items() if study not in studies), Counter()))

    def assumptions(self) -> tuple[str, ...]:
        """What was taken for granted, each with its count."""
        return _lines(self.assumed)

    def __bool__(self) -> bool:
        """Whether anything was left out."""
        return bool(self.left_out)

    def __str__(self) -> str:
        return "; ".join(_lines(self.left_out))


def _lines(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Each with its count; what differs only in the number of a file is one line, which names the first."""
    kinds: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for what in counts:
        file = _FILE.search(what)
        kinds[_FILE.sub("file", what)].append((int(file[1]) if file else 0, what))
    lines = []
    for alike in kinds.values():
        number = sum(counts[what] for _, what in alike)
        lines.append(f"{min(alike)[1]} ({number}{' alike' if len(alike) > 1 else ''})")
    return tuple(sorted(lines))
