# One row a stored volume, and the ledger that accounts for every file found.
rule metadata:
    input:
        index="<results>/index/volumes.parquet",
        ledger="<results>/index/ledger.parquet",
        status=shard_files("<results>/status/crop/{cohort}/{shard}.parquet"),
        stores=shard_files("<results>/volumes/{cohort}/{shard}.parquet"),
    output:
        volumes="<results>/metadata/volumes.parquet",
        ledger="<results>/metadata/ledger.parquet",
    log:
        "<logs>/metadata.log",
    benchmark:
        "<benchmarks>/metadata.tsv"
    conda:
        "../../envs/braing3n.yaml"
    resources:
        mem_mb=grows(4000),
        runtime=15,
    params:
        results=RESULTS,
        settings=settings("preprocess.qc"),
        cohorts=[f"--cohort {cohort}" for cohort in COHORTS],
    shell:
        "braing3n metadata build --results {params.results} --out {output.volumes} --ledger {output.ledger} "
        "--settings {params.settings:q} {params.cohorts} > {log} 2>&1"
