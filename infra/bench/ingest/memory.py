"""Figure I4: peak memory of a million documents and of five million, `limits.memory` being 512 MiB."""
import shutil

from command import arguments, ingest, pipeline, show
from corpus import synthetic


def main():
    parser = arguments(__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5])
    parser.add_argument("--keep", action="store_true", help="keep the corpora, of about 1 GB a million")
    options = parser.parse_args()
    for millions in options.millions:
        folder = options.scratch / "corpus" / f"synthetic-{millions:g}"
        synthetic(options, folder / "documents.jsonl", int(millions * 1e6))
        run = ingest(options, pipeline(options.scratch / "dataset", folder, **{"limits.memory": "512MiB"}))
        figures = {key: run[key] for key in ("read", "kept", "removed", "cpu_s", "wall_s", "peak_mb", "stages")}
        show(f"I4 {millions:g} million", share_of_limit=run["peak_mb"] / 512, documents_a_cpu_s=run["read"] / run["cpu_s"], **figures)
        if not options.keep:
            shutil.rmtree(folder)
    shutil.rmtree(options.scratch / "dataset")


if __name__ == "__main__":
    main()
