"""Figure I6: the main content of pages, scored as ScrapingHub's article extraction benchmark scores it, and the worst page.

A page's score counts its shingles of four tokens, as often as they come; precision and recall are means over the pages, F1 is
of these means. A page that is left out has no text. The worst page is timed by itself, start-up left out.
"""
import gzip
import json
import os
import re
from collections import Counter

from command import arguments, ingest, pipeline, rounds, show, startup, table
from corpus import unpacked

TOKENS = re.compile(r"\w+")
# Nothing but the extraction may leave a page out.
SETTINGS = {"dedup.exact": False, "dedup.near": False, "clean.min_chars": 0, "clean.min_alphanumeric": 0.0}


def main():
    parser = arguments(__doc__)
    parser.add_argument("--each", action="store_true", help="time every page by itself; some minutes")
    options = parser.parse_args()
    gold_folder = unpacked(options, ["html_scrapinghub_gold"]) / "html_scrapinghub_gold"
    gold = json.loads((gold_folder / "ground-truth.json").read_text(encoding="utf-8"))
    pages = options.scratch / "corpus" / "pages"
    pages.mkdir(parents=True, exist_ok=True)
    for name in gold:
        (pages / f"{name}.html").write_bytes(gzip.decompress((gold_folder / "html" / f"{name}.html.gz").read_bytes()))
    settings = pipeline(options.scratch / "dataset", pages, **SETTINGS)
    run = rounds(options, settings)
    found = texts(settings)
    ours = score(gold, {name: found.get(f"{name}.html", "") for name in gold})
    seconds = run["cpu_s"] - startup(options)
    show("I6 ours", **ours, pages=len(gold), without_text=len(gold) - len(found), removed=run["removed"], quarantined=run["quarantined"], pages_a_cpu_s=len(gold) / seconds, peak_mb=run["peak_mb"])
    for path in sorted((gold_folder / "output").glob("*.json")):
        published = json.loads(path.read_text(encoding="utf-8"))
        published = published.get("output", published)
        show(f"I6 {path.stem}, as published", **score(gold, {name: published[name]["articleBody"] for name in gold if name in published}))
    if options.each:
        worst(options, pages)


def texts(settings):
    """The text of each kept page by file name."""
    kept = {}
    for name in ("train", "validation"):
        rows = table(settings["dataset"], name, ["id", "text"])
        kept.update(zip(rows["id"].to_pylist(), rows["text"].to_pylist()))
    records = table(settings["dataset"], "records", ["key", "id", "verdict"]).to_pylist()
    return {os.path.basename(row["key"]): kept[row["id"]] for row in records if row["verdict"] == "kept"}


def score(gold, output):
    """Precision, recall and F1."""
    precisions, recalls = [], []
    for name, truth in gold.items():
        true, predicted = shingles(truth["articleBody"]), shingles(output.get(name, ""))
        right = (true & predicted).total()
        precisions.append(share(right, predicted.total()))
        recalls.append(share(right, true.total()))
    precision, recall = sum(precisions) / len(gold), sum(recalls) / len(gold)
    return {"f1": 2 * precision * recall / (precision + recall), "precision": precision, "recall": recall}


def shingles(text, width=4):
    """How often each shingle comes; a text of fewer tokens is one."""
    tokens = TOKENS.findall(text or "")
    return Counter(tuple(tokens[at : at + width]) for at in range(max(1, len(tokens) - width + 1)))


def share(right, all_of_them):
    """A share of nothing is all of it."""
    return right / all_of_them if all_of_them else 1.0


def worst(options, pages):
    """Seconds of the page that takes longest."""
    start, slowest = startup(options), (0.0, "")
    for page in sorted(pages.glob("*.html")):
        run = ingest(options, pipeline(options.scratch / "dataset", page, **{**SETTINGS, "split.validation": 0.0}))
        slowest = max(slowest, (run["cpu_s"] - start, page.name))
    show("I6 worst page", cpu_s=slowest[0], page=slowest[1])


if __name__ == "__main__":
    main()
