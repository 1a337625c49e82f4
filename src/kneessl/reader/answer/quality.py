"""Flags on a series whose geometry may mislead a model."""

from collections.abc import Iterator

from kneessl.reader.answer.assessment import Flag
from kneessl.sources.dicom.series import Prepared, SeriesFacts
from kneessl.sources.quality import quality_remarks


def quality_flags(series: Prepared, facts: SeriesFacts) -> Iterator[Flag]:
    """Flags on one series that was used."""
    slices, slice_mm, pixel_mm = len(series.volume), series.slice_mm, series.pixel_mm
    for text in quality_remarks(series.plane, slices, slice_mm, pixel_mm, facts.obliquity_deg):
        yield Flag("quality", series.plane, text)
