# The same preprocessing and encoding as one job a volume and step: what `benchmarks.dag` sets our shards beside.
import json
from pathlib import Path

VOLUMES = [
    (cohort, f"{number:05d}")
    for cohort, count in json.loads(Path(config["counts"]).read_text()).items()
    for number in range(count)
]
RESULTS = config["results"]


rule all:
    input:
        [f"{RESULTS}/crop/{cohort}/{volume}.json" for cohort, volume in VOLUMES],


rule convert:
    input:
        f"{RESULTS}/raw.json",
    output:
        f"{RESULTS}/convert/{{cohort}}/{{volume}}.json",
    shell:
        "touch {output}"


for previous, step in (
    ("convert", "n4"),
    ("n4", "mask"),
    ("mask", "register"),
    ("register", "crop"),
):

    rule:
        name:
            step
        input:
            f"{RESULTS}/{previous}/{{cohort}}/{{volume}}.json",
        output:
            f"{RESULTS}/{step}/{{cohort}}/{{volume}}.json",
        shell:
            "touch {output}"
