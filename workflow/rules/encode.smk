# Frozen networks over the volume store, one job a cohort: encoding 64 volumes takes a GPU seconds, starting a job a
# minute. The tables list a cohort's shards; the shards' files lie beside them, undeclared, and survive a killed job.


# Token latents for the diffusion models, pooled features for the probes.
rule encode:
    input:
        metadata="<results>/metadata/volumes.parquet",
        stores=cohort_stores,
        mae="<results>/models/mae/model.safetensors",
        tokenizer="<results>/models/tokenizer/model.safetensors",
    output:
        latents="<results>/latents/{cohort}.parquet",
        features="<results>/features/mae/{cohort}.parquet",
    log:
        "<logs>/encode/{cohort}.log",
    benchmark:
        "<benchmarks>/encode/{cohort}.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=cohort_runtime,
    params:
        results=RESULTS,
    shell:
        "braing3n latents encode --metadata {input.metadata} --results {params.results} --cohort {wildcards.cohort} "
        "--mae $(dirname {input.mae}) --tokenizer $(dirname {input.tokenizer}) "
        "--latents {output.latents} --features {output.features} > {log} 2>&1"


# Features of another frozen encoder, or of a control such as the MAE's untrained twin.
rule encode_features:
    input:
        metadata="<results>/metadata/volumes.parquet",
        stores=cohort_stores,
        mae=encoder_mae,
        weights=encoder_weights,
    output:
        features="<results>/features/{encoder}/{cohort}.parquet",
    log:
        "<logs>/encode_{encoder}/{cohort}.log",
    benchmark:
        "<benchmarks>/encode_{encoder}/{cohort}.tsv"
    wildcard_constraints:
        encoder="(?!mae/)[^/]+",
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=cohort_runtime,
    params:
        results=RESULTS,
        mae=RESULTS / "models" / "mae",
        weights=lambda wildcards, input: (
            f"--weights {input.weights}" if input.weights else ""
        ),
    shell:
        "braing3n encode --encoder {wildcards.encoder} --metadata {input.metadata} --results {params.results} "
        "--cohort {wildcards.cohort} --mae {params.mae} "
        "--features {output.features} {params.weights} > {log} 2>&1"
