"""The corpora of the ingest benches, each made once below the scratch folder.

- `planted`: the rivals' `make_corpus.py`, 2.5 KB documents with planted copies and a truth file
- `synthetic`: any number of documents of about 1 KB, sentences of books in random order; one in ten is an exact copy of an
  earlier one, one in twenty has a sentence replaced
- `curve`: pairs of documents whose sets of 5-word shingles have an exact Jaccard similarity
"""
import json
import random
import re
import subprocess
import sys

ITEMS = ["books_md_dev", "reuters_json_dev", "bbc_news", "wiki_mars_multiling", "zh_poetry_tang", "zh_classical"]


def unpacked(options, items=ITEMS):
    """The folder with the test data of these names."""
    folder = options.scratch / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        if not (folder / item).exists():
            subprocess.run(["tar", "--zstd", "-xf", options.data / f"{item}.tar.zst", "-C", folder], check=True)
    return folder


def planted(options, name, megabytes):
    """The folder of a corpus with a truth file beside it."""
    folder = options.scratch / "corpus" / name
    if not folder.exists():
        command = [sys.executable, options.peers / "make_corpus.py", "--data", unpacked(options), "--out", folder.parent, "--name", name, "--mb", str(megabytes)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def sentences(options):
    """Sentences of the books, each once."""
    found = set()
    for book in sorted(unpacked(options).glob("books_md_dev/*/*.md")):
        text = book.read_text(encoding="utf-8", errors="ignore").replace("\n", " ")
        found.update(sentence for sentence in re.split(r"(?<=[.!?])\s+", text) if 60 < len(sentence) < 240)
    return sorted(found)


def synthetic(options, path, documents, seed=1):
    """Writes one JSONL file."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draw, pool, earlier = random.Random(seed), sentences(options), []
    with open(path.with_suffix(".part"), "w", encoding="utf-8") as file:
        for number in range(documents):
            chance = draw.random()
            if chance < 0.15 and earlier:
                parts = list(draw.choice(earlier))
                if chance < 0.05:
                    parts[draw.randrange(len(parts))] = draw.choice(pool)
            else:
                parts = draw.choices(pool, k=draw.randint(5, 13))
                # A bounded sample of what was written, so that copies come from any distance.
                if len(earlier) < 50_000:
                    earlier.append(parts)
                elif chance > 0.9:
                    earlier[draw.randrange(len(earlier))] = parts
            file.write(json.dumps({"id": number, "text": " ".join(parts)}, ensure_ascii=False) + "\n")
    path.with_suffix(".part").rename(path)
    return path


SIMILARITIES = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95]
UNION = 200


def curve(options, pairs):
    """Writes `pairs` pairs at each similarity; `pair` numbers them. Of the 200 shingles of a pair s × 200 are common: both
    documents end alike, and begin with words of their own."""
    path = options.scratch / "corpus" / f"curve-{pairs}" / "pairs.jsonl"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = random.Random(5)

    def words(count):
        return [f"{draw.getrandbits(36):x}" for _ in range(count)]

    with open(path, "w", encoding="utf-8") as file:
        for at, similarity in enumerate(SIMILARITIES):
            common = round(similarity * UNION)
            for pair in range(pairs):
                end = words(common + 4)
                for _ in range(2):
                    text = " ".join(words((UNION - common) // 2) + end)
                    file.write(json.dumps({"pair": at * pairs + pair, "text": text}) + "\n")
    return path
