"""The process of the `kneessl` command, also as `python -m kneessl`."""

from kneessl import cli
from kneessl.process_tuning import keep_freed_memory, let_waiting_threads_sleep


def main() -> None:
    """Tune the process, which runs nothing else, and read the command line."""
    keep_freed_memory()
    let_waiting_threads_sleep()
    cli.main()


if __name__ == "__main__":
    main()
