# Entry point: `snakemake` in the repository's root finds this file. The workflow itself stands in workflow/Snakefile.
include: "workflow/Snakefile"


# An included file's default target does not count (Snakemake 9), hence this one.
rule default:
    default_target: True
    input:
        rules.all.input,
