# Raw scans to the volume store. One rule a step and shard; per-volume images are undeclared, their status table is the output.


# Step -> the step before it, by `preprocess.order`.
BEFORE = dict(
    zip(CONFIG.preprocess.chain()[1:], CONFIG.preprocess.chain(), strict=False)
)


# Raw DICOM, NIfTI, Analyze or MGZ -> one 3D NIfTI in LPS order, or a reason why not.
rule convert:
    input:
        shard="<results>/index/shards/{cohort}/{shard}.parquet",
    output:
        status=ensure(
            "<results>/status/convert/{cohort}/{shard}.parquet", non_empty=True
        ),
    log:
        "<logs>/convert/{cohort}/{shard}.log",
    benchmark:
        "<benchmarks>/convert/{cohort}/{shard}.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 2
    resources:
        mem_mb=grows(2000),
        runtime=shard_runtime("convert"),
    params:
        root=cohort_root,
        results=RESULTS,
        settings=settings("preprocess.convert"),
        timeout=CONFIG.preprocess.volume_timeout_s,
        max_failed=max_failed_fraction,
    shell:
        "braing3n shard convert --shard {input.shard} --root {params.root:q} --status {output.status} "
        "--results {params.results} --settings {params.settings:q} --threads {threads} "
        "--timeout {params.timeout} --max-failed-fraction {params.max_failed} > {log} 2>&1"


# N4 bias-field correction in native space (Appendix B); skipped where the cohort arrives corrected.
rule n4:
    input:
        shard="<results>/index/shards/{cohort}/{shard}.parquet",
        previous=f"<results>/status/{BEFORE['n4']}/{{cohort}}/{{shard}}.parquet",
    output:
        status=ensure("<results>/status/n4/{cohort}/{shard}.parquet", non_empty=True),
    log:
        "<logs>/n4/{cohort}/{shard}.log",
    benchmark:
        "<benchmarks>/n4/{cohort}/{shard}.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 2
    resources:
        mem_mb=grows(4000),
        runtime=shard_runtime("n4"),
    params:
        root=cohort_root,
        results=RESULTS,
        settings=settings("preprocess.n4"),
        timeout=CONFIG.preprocess.volume_timeout_s,
        max_failed=max_failed_fraction,
    shell:
        "braing3n shard n4 --shard {input.shard} --root {params.root:q} --previous {input.previous} --status {output.status} "
        "--results {params.results} --settings {params.settings:q} --threads {threads} "
        "--timeout {params.timeout} --max-failed-fraction {params.max_failed} > {log} 2>&1"


# Brain mask of each session's T1: HD-BET, deepbet, or the mask as delivered.
rule mask:
    input:
        shard="<results>/index/shards/{cohort}/{shard}.parquet",
        previous=f"<results>/status/{BEFORE['mask']}/{{cohort}}/{{shard}}.parquet",
    output:
        status=ensure("<results>/status/mask/{cohort}/{shard}.parquet", non_empty=True),
    log:
        "<logs>/mask/{cohort}/{shard}.log",
    benchmark:
        "<benchmarks>/mask/{cohort}/{shard}.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 4
    resources:
        mem_mb=grows(8000),
        runtime=shard_runtime("mask"),
        gpu=mask_gpus,
    params:
        root=cohort_root,
        results=RESULTS,
        settings=settings("preprocess.mask"),
        timeout=CONFIG.preprocess.volume_timeout_s,
        max_failed=max_failed_fraction,
    shell:
        "braing3n shard mask --shard {input.shard} --root {params.root:q} --previous {input.previous} --status {output.status} "
        "--results {params.results} --settings {params.settings:q} --threads {threads} "
        "--timeout {params.timeout} --max-failed-fraction {params.max_failed} > {log} 2>&1"


# T1 affine to brain-only SRI24; the session's other modalities follow it; one interpolation.
rule register:
    input:
        shard="<results>/index/shards/{cohort}/{shard}.parquet",
        previous=f"<results>/status/{BEFORE['register']}/{{cohort}}/{{shard}}.parquet",
        atlas="<resources>/atlas/atlas.json",
    output:
        status=ensure(
            "<results>/status/register/{cohort}/{shard}.parquet", non_empty=True
        ),
    log:
        "<logs>/register/{cohort}/{shard}.log",
    benchmark:
        "<benchmarks>/register/{cohort}/{shard}.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 2
    resources:
        mem_mb=grows(4000),
        runtime=shard_runtime("register"),
    params:
        root=cohort_root,
        results=RESULTS,
        settings=settings("preprocess.register"),
        timeout=CONFIG.preprocess.volume_timeout_s,
        max_failed=max_failed_fraction,
    shell:
        "braing3n shard register --shard {input.shard} --root {params.root:q} --previous {input.previous} --status {output.status} "
        "--atlas $(dirname {input.atlas}) --results {params.results} --settings {params.settings:q} --threads {threads} "
        "--timeout {params.timeout} --max-failed-fraction {params.max_failed} > {log} 2>&1"


# Crop to 160x192x160, archival NIfTI, and the packed store that every later stage reads.
rule crop:
    input:
        shard="<results>/index/shards/{cohort}/{shard}.parquet",
        previous="<results>/status/register/{cohort}/{shard}.parquet",
    output:
        status=ensure("<results>/status/crop/{cohort}/{shard}.parquet", non_empty=True),
        store="<results>/volumes/{cohort}/{shard}.npy",
        rows="<results>/volumes/{cohort}/{shard}.parquet",
    log:
        "<logs>/crop/{cohort}/{shard}.log",
    benchmark:
        "<benchmarks>/crop/{cohort}/{shard}.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 2
    resources:
        mem_mb=grows(4000),
        runtime=shard_runtime("crop"),
    params:
        root=cohort_root,
        results=RESULTS,
        settings=settings("preprocess.crop"),
        timeout=CONFIG.preprocess.volume_timeout_s,
        max_failed=max_failed_fraction,
    shell:
        "braing3n shard crop --shard {input.shard} --root {params.root:q} --previous {input.previous} --status {output.status} "
        "--store {output.store} --results {params.results} --settings {params.settings:q} --threads {threads} "
        "--timeout {params.timeout} --max-failed-fraction {params.max_failed} > {log} 2>&1"


# One target a cohort: `snakemake cohort_ixi`, `snakemake cohort_ixi -R n4`, `snakemake cohort_ixi --until n4`.
for cohort in COHORTS:

    rule:
        name:
            rule_name(cohort)
        input:
            shard_files("<results>/status/crop/{cohort}/{shard}.parquet", [cohort]),
