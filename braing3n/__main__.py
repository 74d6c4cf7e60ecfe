"""`python -m braing3n`, the same as the `braing3n` command."""

from braing3n.cli.main import app

app()
