"""Figure I3: quality rules of FineWeb's recipe (Gopher, C4, FineWeb), documents a CPU-second, exact deduplication on."""
from command import arguments, ingest, machine, pipeline, rival, rounds, show, startup
from corpus import planted

RECIPE = {
    "clean.quality.gopher_repetition": {},
    "clean.quality.gopher_quality": {},
    "clean.quality.c4.terminal_punctuation": False,
    "clean.quality.fineweb": {},
}


def main():
    parser = arguments(__doc__)
    parser.add_argument("--rivals", action="store_true")
    options = parser.parse_args()
    show("machine", processor=machine(), startup_cpu_s=startup(options))
    for name, megabytes in {"rules": 4, "small": 40}.items():
        settings = pipeline(options.scratch / "dataset", planted(options, name, megabytes), **{"dedup.near": False, **RECIPE})
        ingest(options, settings)  # fills the page cache
        run = rounds(options, settings)
        figures = {key: run[key] for key in ("read", "kept", "removed", "cpu_s", "wall_s", "peak_mb", "stages")}
        show(f"I3 {megabytes} MB", documents_a_cpu_s=run["read"] / run["cpu_s"], **figures)
    if options.rivals:
        rival(options, "venv-datatrove", "ingest_text.py", "--corpus", planted(options, "rules", 4), "--peers", "dt-filters")


if __name__ == "__main__":
    main()
