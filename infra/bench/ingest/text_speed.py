"""Figures I1 and I2: near and exact deduplication of text, documents a CPU-second from JSONL to a committed version.

Both corpora are read whole: the difference of the two is the marginal rate, without start-up. Rivals run on the small one.
"""
from command import arguments, ingest, machine, pipeline, rival, rounds, show, startup
from corpus import planted

MEGABYTES = {"small": 40, "full": 400}


def main():
    parser = arguments(__doc__)
    parser.add_argument("--rivals", action="store_true")
    options = parser.parse_args()
    show("machine", processor=machine(), startup_cpu_s=startup(options))
    for figure, near in [("I1 near", True), ("I2 exact", False)]:
        runs = {}
        for name, megabytes in MEGABYTES.items():
            settings = pipeline(options.scratch / "dataset", planted(options, name, megabytes), **{"dedup.near": near})
            ingest(options, settings)  # fills the page cache
            run = runs[name] = rounds(options, settings)
            figures = {key: run[key] for key in ("read", "kept", "cpu_s", "wall_s", "peak_mb", "stages")}
            show(f"{figure} {name}", documents_a_cpu_s=run["read"] / run["cpu_s"], **figures)
        small, full = runs["small"], runs["full"]
        show(f"{figure} marginal", documents_a_cpu_s=(full["read"] - small["read"]) / (full["cpu_s"] - small["cpu_s"]))
    if options.rivals:
        small, full = (planted(options, name, megabytes) for name, megabytes in MEGABYTES.items())
        rival(options, "venv", "ingest_text.py", "--corpus", small, "--peers", "rensa")
        rival(options, "venv", "ingest_text.py", "--corpus", full, "--peers", "rensa")
        rival(options, "venv-datatrove", "ingest_text.py", "--corpus", small, "--peers", "dt-exact,dt-minhash")


if __name__ == "__main__":
    main()
