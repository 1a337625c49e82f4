"""The one exception that a user sees as a sentence instead of a traceback."""


class UserError(Exception):
    """Something the user can put right; the message says what is wrong, where, and what to do.

    `kneessl.cli.main` prints it as one line and exits with status 2. It never names a patient.
    """
