# The four trainings. Only final weights are declared: checkpoints lie beside them, so that a stopped job resumes, and
# training.log, since Snakemake empties {log} at every attempt.
# `braing3n launch --gpus N` starts N processes with torchrun, or runs the command itself for 0 or 1.
rule train_mae:
    input:
        metadata="<results>/metadata/volumes.parquet",
    output:
        weights="<results>/models/mae/model.safetensors",
        card="<results>/models/mae/card.json",
        history="<results>/models/mae/history.parquet",
    log:
        "<logs>/train_mae.log",
    benchmark:
        "<benchmarks>/train_mae.tsv"
    retries: 10
    conda:
        "../../envs/braing3n.yaml"
    threads: 16
    resources:
        gpu=4,
        nodes=1,
        mem_mb=128000,
        runtime=240,
    params:
        results=RESULTS,
        settings=settings("mae"),
    shell:
        "braing3n launch --gpus {resources.gpu} --nodes {resources.nodes} mae train --metadata {input.metadata} "
        "--results {params.results} --settings {params.settings:q} --out $(dirname {output.card}) > {log} 2>&1"


rule train_tokenizer:
    input:
        metadata="<results>/metadata/volumes.parquet",
        mae="<results>/models/mae/model.safetensors",
    output:
        weights="<results>/models/tokenizer/model.safetensors",
        card="<results>/models/tokenizer/card.json",
        history="<results>/models/tokenizer/history.parquet",
    log:
        "<logs>/train_tokenizer.log",
    benchmark:
        "<benchmarks>/train_tokenizer.tsv"
    retries: 10
    conda:
        "../../envs/braing3n.yaml"
    threads: 16
    resources:
        gpu=4,
        nodes=1,
        mem_mb=128000,
        runtime=240,
    params:
        results=RESULTS,
        settings=settings("tokenizer"),
    shell:
        "braing3n launch --gpus {resources.gpu} --nodes {resources.nodes} tokenizer train --metadata {input.metadata} "
        "--results {params.results} --mae $(dirname {input.mae}) --settings {params.settings:q} "
        "--out $(dirname {output.card}) > {log} 2>&1"


rule train_dit:
    input:
        metadata="<results>/metadata/volumes.parquet",
        tokenizer="<results>/models/tokenizer/model.safetensors",
        latents=cohort_files("<results>/latents/{cohort}.parquet"),
    output:
        weights="<results>/models/dit/model.safetensors",
        card="<results>/models/dit/card.json",
        history="<results>/models/dit/history.parquet",
    log:
        "<logs>/train_dit.log",
    benchmark:
        "<benchmarks>/train_dit.tsv"
    retries: 20
    conda:
        "../../envs/braing3n.yaml"
    threads: 16
    resources:
        gpu=4,
        nodes=1,
        mem_mb=64000,
        runtime=240,
    params:
        results=RESULTS,
        settings=settings("dit"),
    shell:
        "braing3n launch --gpus {resources.gpu} --nodes {resources.nodes} dit train --metadata {input.metadata} "
        "--results {params.results} --tokenizer $(dirname {input.tokenizer}) --settings {params.settings:q} "
        "--out $(dirname {output.card}) > {log} 2>&1"


rule train_longitudinal:
    input:
        metadata="<results>/metadata/volumes.parquet",
        tokenizer="<results>/models/tokenizer/model.safetensors",
        latents=cohort_files("<results>/latents/{cohort}.parquet"),
    output:
        weights="<results>/models/longitudinal/model.safetensors",
        card="<results>/models/longitudinal/card.json",
        history="<results>/models/longitudinal/history.parquet",
    log:
        "<logs>/train_longitudinal.log",
    benchmark:
        "<benchmarks>/train_longitudinal.tsv"
    retries: 10
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        nodes=1,
        mem_mb=64000,
        runtime=240,
    params:
        results=RESULTS,
        settings=settings("longitudinal"),
    shell:
        "braing3n launch --gpus {resources.gpu} --nodes {resources.nodes} longitudinal train --metadata {input.metadata} "
        "--results {params.results} --tokenizer $(dirname {input.tokenizer}) --settings {params.settings:q} "
        "--out $(dirname {output.card}) > {log} 2>&1"
