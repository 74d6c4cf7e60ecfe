# The frozen encoder and tokenizer over every shard: latents for the diffusion models, pooled features for the probes.
rule encode:
    input:
        metadata="<results>/metadata/volumes.parquet",
        store="<results>/volumes/{cohort}/{shard}.npy",
        mae="<results>/models/mae/model.safetensors",
        tokenizer="<results>/models/tokenizer/model.safetensors",
    output:
        latents="<results>/latents/{cohort}/{shard}.safetensors",
        rows="<results>/latents/{cohort}/{shard}.parquet",
        features="<results>/features/mae/{cohort}/{shard}.parquet",
    log:
        "<logs>/encode/{cohort}/{shard}.log",
    benchmark:
        "<benchmarks>/encode/{cohort}/{shard}.tsv"
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=30,
    params:
        results=RESULTS,
    shell:
        "braing3n latents encode --metadata {input.metadata} --results {params.results} --cohort {wildcards.cohort} "
        "--shard {wildcards.shard} --mae $(dirname {input.mae}) --tokenizer $(dirname {input.tokenizer}) "
        "--latents {output.latents} --features {output.features} > {log} 2>&1"


# Features of another frozen encoder, or of a control such as the MAE's untrained twin.
rule encode_features:
    input:
        metadata="<results>/metadata/volumes.parquet",
        store="<results>/volumes/{cohort}/{shard}.npy",
        mae="<results>/models/mae/model.safetensors",
        weights=encoder_weights,
    output:
        features="<results>/features/{encoder}/{cohort}/{shard}.parquet",
    log:
        "<logs>/encode_{encoder}/{cohort}/{shard}.log",
    benchmark:
        "<benchmarks>/encode_{encoder}/{cohort}/{shard}.tsv"
    wildcard_constraints:
        encoder="(?!mae/)[^/]+",
    conda:
        "../../envs/braing3n.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=30,
    params:
        results=RESULTS,
        weights=lambda wildcards, input: (
            f"--weights {input.weights}" if input.weights else ""
        ),
    shell:
        "braing3n encode --encoder {wildcards.encoder} --metadata {input.metadata} --results {params.results} "
        "--cohort {wildcards.cohort} --shard {wildcards.shard} --mae $(dirname {input.mae}) "
        "--features {output.features} {params.weights} > {log} 2>&1"
