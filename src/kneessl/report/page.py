"""What every page begins and ends with, and the one function that writes pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kneessl.files import write_text
from kneessl.report.template import render


@dataclass(frozen=True)
class PageHead:
    """What a page says besides its own content; whatever is empty is left out."""

    title: str
    lead: str = ""
    """One paragraph that sums the page up."""
    warnings: Sequence[str] = ()
    """What went wrong or may mislead, shown before anything else; one line each."""
    data_note: str = ""
    """What a reader must know about the data, shown prominently."""
    facts: Sequence[tuple[str, str]] = ()
    """Name and value of what a reader wants first: method, exams, seeds, epochs."""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Section to name to value."""
    commands: Sequence[str] = ()
    """The command lines that made the page."""
    task: str = ""
    """The finding, such as "acl"."""
    plane: str = ""
    """Such as "sagittal"."""

    @property
    def filled_settings(self) -> dict[str, Mapping[str, object]]:
        """The sections of the settings that hold any."""
        return {section: values for section, values in self.settings.items() if values}


def write_page(path: Path, template: str, head: PageHead, **content: object) -> None:
    """Write a page to `path`, whole or not at all; the same arguments give the same bytes.

    All text is escaped; none of it is read as HTML.

    Args:
        path: The HTML file; it is replaced if it exists.
        template: The name of a template of this folder that extends `base.html`.
        head: What stands around the content.
        content: The values that the template needs besides.
    """
    write_text(path, render(template, head=head, **content))
