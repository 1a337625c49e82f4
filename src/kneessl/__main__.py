"""`python -m kneessl` is the `kneessl` command."""

from kneessl.cli import main

main()
