"""What an import left out, and whether a fault ends it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Literal, NamedTuple

from kneessl.errors import UserError

_FILE = re.compile(r"\bfile (\d+) of \d+")

NoteKind = Literal["fault", "left out", "assumed"]


class Note(NamedTuple):
    """One line of what was left out or assumed; of a fault, what should have been read and could not be."""

    study: str
    """StudyInstanceUID; empty where it is not known."""
    kind: NoteKind
    what: str
    times: int


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
        self._faulty: set[tuple[str, str]] = set()

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
        self._faulty.add((study, str(error)))
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

    def lines(self) -> Iterator[Note]:
        """Everything noted, study by study."""
        for study, counts in sorted(self._of_study.items()):
            for what, count in sorted(counts.items()):
                yield Note(study, "fault" if (study, what) in self._faulty else "left out", what, count)
        for what, count in sorted(self.assumed.items()):
            yield Note("", "assumed", what, count)

    def __bool__(self) -> bool:
        """Whether anything was left out."""
        return bool(self.left_out)

    def __str__(self) -> str:
        return "; ".join(_lines(self.left_out))


def summary(counts: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Each with its count; what differs only in the number of a file is one line, which names the first."""
    kinds: dict[str, tuple[int, str, int, bool]] = {}
    for what, count in counts:
        file = _FILE.search(what)
        number, kind = int(file[1]) if file else 0, _FILE.sub("file", what)
        first, words, total, alike = kinds.get(kind, (number, what, 0, False))
        alike = alike or what != words
        kinds[kind] = (*min((first, words), (number, what)), total + count, alike)
    return tuple(sorted(f"{what} ({count}{' alike' if alike else ''})" for _, what, count, alike in kinds.values()))


def _lines(counts: Mapping[str, int]) -> tuple[str, ...]:
    return summary(counts.items())
