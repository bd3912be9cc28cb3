"""Figure I10: recall of planted copies by script, and precision, on the rivals' corpus with its truth file.

A planted cluster is a document and its copies; one of them should stay. Precision counts a removal as right if the record
belongs to a planted cluster, or if it is an exact copy of its survivor or at least as similar to it as the threshold.
"""
import json
from collections import Counter, defaultdict

from command import arguments, ingest, pipeline, show, table
from corpus import planted
from shingles import jaccard, shingles


def main():
    parser = arguments(__doc__)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--threshold", type=float, default=0.75)
    options = parser.parse_args()
    folder = planted(options, "small" if options.megabytes == 40 else f"planted-{options.megabytes}", options.megabytes)
    settings = pipeline(options.scratch / "dataset", folder, **{"dedup.threshold": options.threshold})
    ingest(options, settings)
    documents = {}
    for path in folder.glob("*.jsonl"):
        for number, line in enumerate(open(path, encoding="utf-8"), 1):
            documents[f"{path.name}#{number}"] = json.loads(line)
    removed = {}
    for row in table(settings["dataset"], "records", ["key", "id", "reason", "survivor"]).to_pylist():
        if row["reason"] in ("exact_duplicate", "near_duplicate"):
            removed[documents[row["key"]]["id"]] = row
    clusters, kind = defaultdict(list), {}
    with open(f"{folder}.truth.jsonl", encoding="utf-8") as lines:
        for line in lines:
            truth = json.loads(line)
            clusters[truth["of"]].append(truth["id"])
            kind[truth["of"]] = ("zh" if truth["lang"] == "zh" else "other", truth["kind"], truth["rate"])
    found, planted_copies, of_clusters, over = Counter(), Counter(), set(), 0
    for base, copies in clusters.items():
        members = [base, *copies]
        of_clusters.update(members)
        gone = sum(member in removed for member in members)
        found[kind[base]] += min(gone, len(copies))
        over += max(gone - len(copies), 0)
        planted_copies[kind[base]] += len(copies)
    for key in sorted(planted_copies):
        script, what, rate = key
        show(f"I10 recall, {script}, {what} at {rate}", recall=found[key] / planted_copies[key], copies=planted_copies[key])
    wrong = unlike(settings, documents, removed, options.threshold)
    planted_gone = sum(found.values())
    show("I10 precision", removed=len(removed), of_planted_copies=planted_gone / len(removed), not_planted=sum(key not in of_clusters for key in removed), over_removed=over, not_similar=wrong, precision=1 - wrong / len(removed))


def unlike(settings, documents, removed, threshold):
    """How many of the removed are not that similar to the record that was kept instead; copies of a near duplicate count as it."""
    text_of = {}
    for name in ("train", "validation"):
        kept = table(settings["dataset"], name, ["id", "text"])
        text_of.update(zip(kept["id"].to_pylist(), kept["text"].to_pylist()))
    return sum(jaccard(shingles(documents[row["key"]]["text"]), shingles(text_of[row["survivor"]])) < threshold for row in removed.values())


if __name__ == "__main__":
    main()
