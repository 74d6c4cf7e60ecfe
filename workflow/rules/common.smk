# What all rule files share. The validated configuration, the frozen index, resources that follow the shard's size.
import json
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

from braing3n.config import Config, validate_settings
from braing3n.encoders.registry import encoder_of, needs_mae, weights_needed
from braing3n.errors import BrainG3NError

STEPS = ("convert", "n4", "mask", "register", "crop")

try:
    CONFIG = validate_settings(
        Config, config, " and ".join(str(file) for file in workflow.configfiles)
    )
except BrainG3NError as error:
    raise WorkflowError(str(error)) from None

RESULTS = CONFIG.pathvars.results
INDEX = RESULTS / "index" / "shards.json"


def read_shards():
    """Cohort -> {shard: number of volumes}, from the index that `braing3n index` froze; empty without one."""
    if not INDEX.exists():
        return {}
    cohorts = json.loads(INDEX.read_text())["cohorts"]
    chosen = CONFIG.only_cohorts or tuple(cohorts)
    unknown = [name for name in chosen if name not in cohorts]
    if unknown:
        raise WorkflowError(
            f"{INDEX}: has no cohort {', '.join(unknown)}; it has {', '.join(cohorts)}. "
            "Index it first: braing3n index --config config/config.yaml"
        )
    return {name: cohorts[name]["shards"] for name in chosen}


SHARDS = read_shards()
COHORTS = tuple(SHARDS)


def config_options():
    """The configuration files of this run as options of the `braing3n` command."""
    files = dict.fromkeys(
        ["config/config.yaml", *(str(file) for file in reversed(workflow.configfiles))]
    )
    return [f"--config {file}" for file in files]


def indexed(wildcards):
    """Input of the targets that span cohorts: the index, or one clear error that says how to make it."""
    if not SHARDS:
        files = (
            " ".join(f"--config {file}" for file in workflow.configfiles)
            or "--config config/config.yaml"
        )
        raise WorkflowError(
            f"There is no index at {INDEX}. Name your cohorts' folders under 'cohorts:' in the configuration, "
            f"then run first: braing3n index {' '.join(config_options())}"
        )
    return str(INDEX)


def rule_name(cohort):
    """UPENN-GBM -> cohort_upenn_gbm, the target that takes one cohort to the volume store."""
    slug = re.sub(r"[^a-z0-9]+", "_", cohort.lower()).strip("_")
    return f"cohort_{slug}"


def shard_files(pattern, cohorts=COHORTS):
    """Expand `pattern` over all shards of `cohorts`."""
    return [
        pattern.format(cohort=cohort, shard=shard)
        for cohort in cohorts
        for shard in SHARDS[cohort]
    ]


def cohort_stores(wildcards):
    """The packed volumes of all shards of a cohort."""
    return shard_files("<results>/volumes/{cohort}/{shard}.npy", [wildcards.cohort])


def cohort_files(pattern):
    """Expand `pattern` over all cohorts."""
    return [pattern.format(cohort=cohort) for cohort in COHORTS]


def cohort_root(wildcards):
    source = CONFIG.cohorts.get(wildcards.cohort)
    if source is None:
        raise WorkflowError(
            f"cohorts.{wildcards.cohort}.root is not set in the configuration, but the index has it"
        )
    return str(source.root)


def max_failed_fraction(wildcards):
    own = CONFIG.cohorts[wildcards.cohort].max_failed_fraction
    return CONFIG.preprocess.max_failed_fraction if own is None else own


def settings(section):
    """A section of the configuration as JSON, for a rule's params: only this rule reruns when it changes."""
    value = CONFIG
    for key in section.split("."):
        value = getattr(value, key)
    return value.model_dump_json()


# Seconds of one core a volume: measured medians, rounded up (docs/preprocess.md).
SECONDS_A_VOLUME = {"convert": 3, "n4": 20, "mask": 25, "register": 30, "crop": 3}


def shard_runtime(step):
    """Minutes for a shard: its volumes x the step's cost, half as much again, more at each attempt."""

    def minutes(wildcards, attempt, threads):
        volumes = SHARDS[wildcards.cohort][wildcards.shard]
        return (
            max(10, round(1.5 * volumes * SECONDS_A_VOLUME[step] / threads / 60))
            * attempt
        )

    return minutes


# Seconds a volume of a frozen network on a GPU, reading included, that leave room for a slow file system.
ENCODE_SECONDS = 0.5


def cohort_runtime(wildcards, attempt):
    """Minutes for all volumes of a cohort through a frozen network; a retry goes on where the last job stopped."""
    volumes = sum(SHARDS[wildcards.cohort].values())
    return max(30, round(volumes * ENCODE_SECONDS / 60)) * attempt


def grows(mb):
    """Memory that doubles with each retry."""

    def amount(wildcards, attempt):
        return mb * 2 ** (attempt - 1)

    return amount


def mask_gpus(wildcards):
    """The provided and CPU backends need no GPU; HD-BET is given one."""
    return int(
        CONFIG.preprocess.mask.backend == "hd-bet"
        and CONFIG.preprocess.mask.device != "cpu"
    )


# Encoders whose features need a pass over the volumes; the others are computed by the probe from the tables.
ENCODED = {encoder_of(name) for name in CONFIG.probe.encoders} - {None, "mae"}


def encoder_mae(wildcards):
    """The trained MAE, for the encoders that need it; the others need not wait for it."""
    return (
        "<results>/models/mae/model.safetensors" if needs_mae(wildcards.encoder) else []
    )


def encoder_weights(wildcards):
    """File of an encoder's own weights, where it has any."""
    return CONFIG.probe.weights.get(wildcards.encoder, [])


def left_out():
    """Encoder -> what is missing, for those of `probe.encoders` that need weights which are not there."""
    missing = {}
    for name in sorted(ENCODED):
        path, remedy = CONFIG.probe.weights.get(name), weights_needed(name)
        if remedy and not (path and path.exists()):
            missing[name] = (
                f"{f'there is no {path}' if path else 'no weights are given'}; {remedy}"
            )
    return missing


# The probe's table names them too, as unavailable.
WITHOUT_WEIGHTS = left_out()
ENCODED -= set(WITHOUT_WEIGHTS)
if workflow.is_main_process:
    for name, reason in WITHOUT_WEIGHTS.items():
        print(f"not probed: {name}: {reason}", file=sys.stderr)


def probe_features(wildcards):
    """Features of every encoder in `probe.encoders` that come from a rule of their own."""
    return [
        file
        for name in ["mae", *sorted(ENCODED)]
        for file in cohort_files(f"<results>/features/{name}/{{cohort}}.parquet")
    ]


MODELS = ("mae", "tokenizer", "dit", "longitudinal")
TABLES = (
    "reconstruction",
    "probes",
    "frechet",
    "memorization",
    "memorization_pairs",
    "forecast",
)

# What the figures and the report are made from.
REPORTED = [
    "<results>/index/volumes.parquet",
    "<results>/metadata/volumes.parquet",
    "<results>/metadata/ledger.parquet",
    *(
        f"<results>/models/{name}/{file}"
        for name in MODELS
        for file in ("card.json", "history.parquet")
    ),
    *(f"<results>/tables/{name}.parquet" for name in TABLES),
    "<results>/generated",
    "<results>/forecast",
    "<results>/figures/reconstruction",
]
