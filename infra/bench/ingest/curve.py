"""Figure I7: which share of pairs the bands find at each similarity, beside theory, and whether removals are right.

With `dedup.threshold` below every similarity each pair that shares a band is removed, so the share of pairs with a removal
is the recall of the bands: 1 - (1 - s^rows)^bands. Precision is measured on the planted corpus: the exact Jaccard
similarity of every near duplicate to its survivor, computed again here from the raw text.
"""
import json
from collections import Counter

from command import arguments, ingest, pipeline, show, table
from corpus import SIMILARITIES, curve, planted
from shingles import jaccard, shingles

BANDS, ROWS, THRESHOLD = 14, 8, 0.75


def main():
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=20_000, help="at each similarity")
    options = parser.parse_args()
    recall(options)
    precision(options)


def recall(options):
    path = curve(options, options.pairs)
    settings = pipeline(options.scratch / "dataset", path.parent, **{"dedup.threshold": 0.3})
    ingest(options, settings)
    pair_of = [json.loads(line)["pair"] for line in open(path, encoding="utf-8")]
    found = Counter()
    for row in table(settings["dataset"], "records", ["key", "reason"]).to_pylist():
        if row["reason"] == "near_duplicate":
            found[pair_of[int(row["key"].split("#")[1]) - 1] // options.pairs] += 1
    for at, similarity in enumerate(SIMILARITIES):
        measured, theory = found[at] / options.pairs, 1 - (1 - similarity**ROWS) ** BANDS
        show(f"I7 recall at {similarity}", measured=measured, theory=theory, points=100 * (measured - theory))


def precision(options):
    folder = planted(options, "full", 400)
    settings = pipeline(options.scratch / "dataset", folder, **{"dedup.threshold": THRESHOLD})
    ingest(options, settings)
    text_of = {}
    for name in ("train", "validation"):
        kept = table(settings["dataset"], name, ["id", "text"])
        text_of.update(zip(kept["id"].to_pylist(), kept["text"].to_pylist()))
    lines = {path.name: path.read_text(encoding="utf-8").split("\n") for path in folder.glob("*.jsonl")}
    right, all, least = 0, 0, 1.0
    for row in table(settings["dataset"], "records", ["key", "reason", "survivor"]).to_pylist():
        if row["reason"] == "near_duplicate":
            name, number = row["key"].split("#")
            removed = json.loads(lines[name][int(number) - 1])["text"]
            similarity = jaccard(shingles(removed), shingles(text_of[row["survivor"]]))
            right, all, least = right + (similarity >= THRESHOLD), all + 1, min(least, similarity)
    show("I7 precision", removals=all, right=right, precision=right / all, least_similar=least)


if __name__ == "__main__":
    main()
