"""Checks of methods' settings: what would crash, or give losses that are no numbers, is refused by name."""

import math

from kneessl.errors import UserError


def require_whole(least: int = 1, /, **settings: float) -> None:
    """Raise a user error for the first setting that is no whole number of `least` or more: widths, counts."""
    for name, value in settings.items():
        if not (isinstance(value, int) and value >= least):
            raise UserError(f"settings.{name} is {value}; it must be a whole number, {least} or more")


def require_positive(**settings: float) -> None:
    """Raise a user error for the first setting that is not above 0: temperatures."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise UserError(f"settings.{name} is {value}; it must be above 0")


def require_share(**settings: float) -> None:
    """Raise a user error for the first setting that is not from 0 to 1: shares, momenta."""
    for name, value in settings.items():
        if not 0 <= value <= 1:
            raise UserError(f"settings.{name} is {value}; it must be from 0 to 1")
