"""Figure I5: adding 1 % to a dataset, beside ingesting all of it anew; both must come to the same rows."""
import shutil
import statistics

from command import arguments, ingest, pipeline, show
from corpus import synthetic


def main():
    parser = arguments(__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=100, help="files of the same size; the last is what is added")
    options = parser.parse_args()
    folder = options.scratch / "corpus" / f"increment-{options.documents}-{options.files}"
    whole = synthetic(options, options.scratch / "corpus" / f"synthetic-{options.documents / 1e6:g}" / "documents.jsonl", options.documents)
    split(whole, folder, options.documents // options.files)
    last = max(folder.glob("*.jsonl"))
    source, dataset = pipeline(options.scratch / "dataset", folder), pipeline(options.scratch / "increment", folder)
    rebuilds, increments = [], []
    for round in range(options.rounds):
        rebuilds.append(ingest(options, source))
        held = last.rename(options.scratch / "held.jsonl")
        try:
            base = ingest(options, dataset)
        finally:
            held.rename(last)
        increments.append(ingest(options, dataset, keep=True))
        for what, run in [("rebuild", rebuilds[-1]), ("base", base), ("increment", increments[-1])]:
            show(f"I5 round {round} {what}", **{key: run[key] for key in ("version", "read", "kept", "wall_s", "cpu_s", "peak_mb", "stages")}, digest=run["rows_digest"][:12])
    same = {run["rows_digest"] for run in rebuilds + increments}
    wall, cpu = (statistics.median(run[key] for run in increments) / statistics.median(run[key] for run in rebuilds) for key in ("wall_s", "cpu_s"))
    show("I5", documents=options.documents, share_of_wall=wall, share_of_cpu=cpu, rows_equal=len(same) == 1)
    shutil.rmtree(options.scratch / "dataset")
    shutil.rmtree(options.scratch / "increment")


def split(whole, folder, lines_a_file):
    """Cuts a JSONL file into files of so many lines."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    with open(whole, "rb") as lines:
        file = None
        for number, line in enumerate(lines):
            if number % lines_a_file == 0:
                if file:
                    file.close()
                file = open(folder / f"part-{number // lines_a_file:05}.jsonl", "wb")
            file.write(line)
    file.close()


if __name__ == "__main__":
    main()
