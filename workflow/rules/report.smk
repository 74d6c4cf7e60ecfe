# Figures and the one self-contained HTML file, made from the tables alone; what failed upstream is named in them.
rule figures:
    input:
        REPORTED,
        atlas="<resources>/atlas/atlas.json",
    output:
        figures=report(
            directory("<results>/figures/report"),
            patterns=["{topic}/{figure}.png"],
            caption="../report/figures.rst",
            category="2. Figures",
            subcategory="{topic}",
            labels={"figure": "{figure}"},
        ),
    log:
        "<logs>/figures.log",
    benchmark:
        "<benchmarks>/figures.tsv"
    conda:
        "../../envs/braing3n.yaml"
    resources:
        mem_mb=grows(8000),
        runtime=60,
    params:
        results=RESULTS,
        settings=settings("report"),
        benchmarks=CONFIG.pathvars.benchmarks,
        config=config_options(),
    shell:
        "braing3n figures make --results {params.results} --settings {params.settings:q} {params.config} "
        "--atlas $(dirname {input.atlas}) --benchmarks {params.benchmarks} --out {output.figures} > {log} 2>&1"


rule report:
    input:
        REPORTED,
        atlas="<resources>/atlas/atlas.json",
        figures="<results>/figures/report",
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
        config=config_options(),
    shell:
        "braing3n report build --results {params.results} --settings {params.settings:q} {params.config} "
        "--atlas $(dirname {input.atlas}) --benchmarks {params.benchmarks} --figures {input.figures} --reuse-figures "
        "--out {output} > {log} 2>&1"
