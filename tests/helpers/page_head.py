"""A page's content as keywords, parted into its head and the rest."""

from dataclasses import fields

from kneessl.report.page import PageHead


def headed(content):
    """Return the PageHead of those of the keywords that are its own, and the others."""
    of_head = {field.name for field in fields(PageHead)}
    head = PageHead(**{name: value for name, value in content.items() if name in of_head})
    return head, {name: value for name, value in content.items() if name not in of_head}
