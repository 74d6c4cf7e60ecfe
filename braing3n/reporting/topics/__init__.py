"""One module a section of the report: its title, its figures, its parts."""
