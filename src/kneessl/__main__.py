"""The process of the `kneessl` command, also as `python -m kneessl`."""

from kneessl import cli
from kneessl.startup import keep_freed_memory


def main() -> None:
    """Set up the process, which is all ours, and read the command line."""
    keep_freed_memory()
    cli.main()


if __name__ == "__main__":
    main()
