"""Salted hashes, by which a later import recognises a study and a person, and nobody else does.

The salt is a secret of this user, outside every exam folder: patient IDs are numbers of a few digits, so whoever had
the salt could try them all. Hashes begin with the salt's own hash, so that another salt is noticed.
"""

import hashlib
import hmac
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kneessl.errors import UserError

_BYTES = 32


@dataclass(frozen=True)
class Salt:
    """The salt of a user."""

    secret: bytes

    @property
    def name(self) -> str:
        """With which each of its hashes begins; says nothing of the salt itself."""
        return hashlib.sha256(b"kneessl salt " + self.secret).hexdigest()[:8]

    def hash(self, text: str) -> str:
        """Of a study or person: 8 and 32 hexadecimal digits."""
        digest = hmac.new(self.secret, text.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
        return f"{self.name}-{digest[:32]}"


def salt_file() -> Path:
    """Where the salt of this user is kept."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "kneessl" / "salt"


def load_salt() -> tuple[Salt, bool]:
    """The salt of this user, and whether it was made just now.

    Raises:
        UserError: it cannot be read or made, or is none.
    """
    path = salt_file()
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            handle, partial = tempfile.mkstemp(prefix=".salt.", dir=path.parent)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(_BYTES) + "\n")
            try:
                path.hardlink_to(partial)
                made = True
            except FileExistsError:  # another import made it in this very moment
                made = False
            Path(partial).unlink()
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise UserError(
            f"{path}: the salt by which studies are recognised cannot be read or written "
            f"({(error.strerror or '').lower()}); XDG_CONFIG_HOME names another folder for it"
        ) from None
    except ValueError:
        secret = b""
    if len(secret) != _BYTES:
        raise UserError(f"{path} is damaged; put back the salt that exams were imported with, or remove it")
    return Salt(secret), made
