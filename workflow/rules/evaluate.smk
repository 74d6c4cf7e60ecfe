# What the trained models are worth: reconstructions, probes, generated volumes, distances, memorization, forecasts.
rule reconstruct:
    input:
        metadata="<results>/metadata/volumes.parquet",
        mae="<results>/models/mae/model.safetensors",
        tokenizer="<results>/models/tokenizer/model.safetensors",
    output:
        table="<results>/tables/reconstruction.parquet",
        figures=directory("<results>/figures/reconstruction"),
    log:
        "<logs>/reconstruct.log",
    benchmark:
        "<benchmarks>/reconstruct.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=120,
    params:
        results=RESULTS,
    shell:
        "braing3n reconstruct run --metadata {input.metadata} --results {params.results} --mae $(dirname {input.mae}) "
        "--tokenizer $(dirname {input.tokenizer}) --table {output.table} --figures {output.figures} > {log} 2>&1"


rule probe:
    input:
        metadata="<results>/metadata/volumes.parquet",
        features=probe_features,
        latents=cohort_files("<results>/latents/{cohort}.parquet"),
        tasks=CONFIG.probe.tasks,
    output:
        table="<results>/tables/probes.parquet",
    log:
        "<logs>/probe.log",
    benchmark:
        "<benchmarks>/probe.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 16
    resources:
        mem_mb=grows(32000),
        runtime=480,
    params:
        results=RESULTS,
        settings=settings("probe"),
    shell:
        "braing3n probe run --metadata {input.metadata} --results {params.results} --settings {params.settings:q} "
        "--table {output.table} > {log} 2>&1"


rule generate:
    input:
        metadata="<results>/metadata/volumes.parquet",
        arms=CONFIG.generate.arms,
        mae="<results>/models/mae/model.safetensors",
        tokenizer="<results>/models/tokenizer/model.safetensors",
        dit="<results>/models/dit/model.safetensors",
    output:
        generated=directory("<results>/generated"),
    log:
        "<logs>/generate.log",
    benchmark:
        "<benchmarks>/generate.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=240,
    params:
        settings=settings("generate"),
        sampler=settings("dit.sampler"),
    shell:
        "braing3n generate run --arms {input.arms} --mae $(dirname {input.mae}) "
        "--tokenizer $(dirname {input.tokenizer}) --dit $(dirname {input.dit}) --metadata {input.metadata} "
        "--settings {params.settings:q} --sampler {params.sampler:q} --out {output.generated} > {log} 2>&1"


rule forecast:
    input:
        metadata="<results>/metadata/volumes.parquet",
        latents=cohort_files("<results>/latents/{cohort}.parquet"),
        mae="<results>/models/mae/model.safetensors",
        tokenizer="<results>/models/tokenizer/model.safetensors",
        longitudinal="<results>/models/longitudinal/model.safetensors",
    output:
        forecast=directory("<results>/forecast"),
        table="<results>/tables/forecast.parquet",
    log:
        "<logs>/forecast.log",
    benchmark:
        "<benchmarks>/forecast.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=240,
    params:
        results=RESULTS,
        settings=settings("longitudinal"),
    shell:
        "braing3n forecast run --metadata {input.metadata} --results {params.results} --mae $(dirname {input.mae}) "
        "--tokenizer $(dirname {input.tokenizer}) --longitudinal $(dirname {input.longitudinal}) "
        "--settings {params.settings:q} --out {output.forecast} --table {output.table} > {log} 2>&1"


rule frechet:
    input:
        metadata="<results>/metadata/volumes.parquet",
        generated="<results>/generated",
        mae="<results>/models/mae/model.safetensors",
        tokenizer="<results>/models/tokenizer/model.safetensors",
    output:
        table="<results>/tables/frechet.parquet",
    log:
        "<logs>/frechet.log",
    benchmark:
        "<benchmarks>/frechet.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=240,
    params:
        results=RESULTS,
        settings=settings("frechet"),
    shell:
        "braing3n frechet run --metadata {input.metadata} --results {params.results} --generated {input.generated} "
        "--mae $(dirname {input.mae}) --tokenizer $(dirname {input.tokenizer}) --settings {params.settings:q} "
        "--table {output.table} > {log} 2>&1"


rule memorization:
    input:
        metadata="<results>/metadata/volumes.parquet",
        latents=cohort_files("<results>/latents/{cohort}.parquet"),
        generated="<results>/generated",
        tokenizer="<results>/models/tokenizer/model.safetensors",
    output:
        table="<results>/tables/memorization.parquet",
        pairs="<results>/tables/memorization_pairs.parquet",
    log:
        "<logs>/memorization.log",
    benchmark:
        "<benchmarks>/memorization.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        mem_mb=grows(64000),
        runtime=240,
    params:
        results=RESULTS,
        settings=settings("memorization"),
    shell:
        "braing3n memorization run --metadata {input.metadata} --results {params.results} "
        "--generated {input.generated} --tokenizer $(dirname {input.tokenizer}) --settings {params.settings:q} "
        "--table {output.table} > {log} 2>&1"
