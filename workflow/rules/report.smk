# One self-contained HTML file, made from the tables alone; what failed upstream is named in it.
rule report:
    input:
        "<results>/index/volumes.parquet",
        "<results>/metadata/volumes.parquet",
        "<results>/metadata/ledger.parquet",
        [
            f"<results>/models/{name}/card.json"
            for name in ("mae", "tokenizer", "dit", "longitudinal")
        ],
        [
            f"<results>/models/{name}/history.parquet"
            for name in ("mae", "tokenizer", "dit", "longitudinal")
        ],
        [
            f"<results>/tables/{name}.parquet"
            for name in (
                "reconstruction",
                "probes",
                "frechet",
                "memorization",
                "memorization_pairs",
                "forecast",
            )
        ],
        "<results>/generated",
        "<results>/forecast",
        "<results>/figures/reconstruction",
    output:
        report(
            "<results>/report/report.html",
            caption="../report/report.rst",
            category="1. Report",
        ),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        "../../envs/braing3n.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=60,
    params:
        results=RESULTS,
        settings=settings("report"),
        benchmarks=CONFIG.pathvars.benchmarks,
    shell:
        "braing3n report build --results {params.results} --settings {params.settings:q} "
        "--benchmarks {params.benchmarks} --out {output} > {log} 2>&1"
