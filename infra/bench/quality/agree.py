"""Do our quality rules decide as datatrove's do? Per rule: documents, agreement, and every kind of difference.

    python -m venv venv && venv/bin/pip install 'datatrove[processing]==0.10.0' spacy==3.8.18 pyarrow
    venv/bin/python agree.py corpus.jsonl WORK [FOREBAY]   # JSON lines with `text`; datatrove takes some 90 documents a CPU-second

The corpus is ingested without any rule first, and datatrove is asked about the documents of that version, so that both judge
the same text. Then one ingest a rule, with the published defaults (English), but for C4's terminal punctuation, which FineWeb
turns off, and one with all of them, each judging what the one before leaves. What datatrove answers is kept in WORK.
Fails if a rule agrees on fewer than 99.9 % of the documents.
"""
import argparse
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ingest"))
from command import ROOT, ingest, pipeline, table

RULES = ["gopher_repetition", "gopher_quality", "c4", "fineweb"]
LIMIT = 0.999
# No rule but those that are asked for, and no duplicate, leaves a document out.
OPEN = {
    "dedup.exact": False, "dedup.near": False, "clean.min_chars": 0, "clean.max_chars": 1 << 40, "clean.max_line_chars": 1 << 40,
    "clean.min_alphanumeric": 0.0, "clean.repair_mojibake": False, "split.validation": 0.0, "shard.order": "source",
}


def settings_of(rules):
    """Our settings for some of the rules."""
    settings = {f"clean.quality.{rule}": {} for rule in rules if rule != "c4"}
    return {**settings, "clean.quality.c4.terminal_punctuation": False} if "c4" in rules else settings


def rows(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def documents(options):
    """The corpus as a version without rules has it, as JSON lines with `id`."""
    found = options.work / "documents.jsonl"
    if not found.exists():
        dataset = options.work / "plain"
        ingest(options, pipeline(dataset, options.corpus, **OPEN))
        with open(found, "w", encoding="utf-8") as file:
            for number, text in enumerate(table(dataset, "train", ["text"])["text"].to_pylist()):
                file.write(json.dumps({"id": str(number), "text": text}, ensure_ascii=False) + "\n")
    return found


def ours(options, corpus, rules):
    """Of each document the reason (none: kept) and the text that is left."""
    dataset = options.work / "ours"
    ingest(options, pipeline(dataset, corpus, **OPEN, **settings_of(rules)))
    records = table(dataset, "records", ["key", "reason", "verdict"]).to_pylist()
    left = iter(table(dataset, "train", ["text"])["text"].to_pylist())
    return {str(int(row["key"].rpartition("#")[2]) - 1): (row["reason"], next(left) if row["verdict"] == "kept" else None) for row in records}


def reason(verdict):
    """datatrove answers True, or False with a reason."""
    return None if verdict is True else verdict[1] if isinstance(verdict, tuple) else "removed"


def reference(options, corpus):
    """datatrove's answers, asked once."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter

    found = options.work / "datatrove.jsonl"
    if found.exists():
        return {row["id"]: row for row in rows(found)}
    filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]

    def decide(document_filter, document):
        try:
            return reason(document_filter.filter(document))
        except ZeroDivisionError:
            return "division_by_zero"

    start, answers = time.process_time(), {}
    for row in rows(corpus):
        answer = answers[row["id"]] = {"id": row["id"]}
        for rule, document_filter in zip(RULES, filters):
            document = Document(text=row["text"], id=row["id"])
            answer[rule] = (decide(document_filter, document), document.text)
        document = Document(text=row["text"], id=row["id"])
        answer["all"] = (next(filter(None, (decide(one, document) for one in filters)), None), document.text)
    print(f"datatrove: {len(answers)} documents, {len(answers) / (time.process_time() - start):.0f} a CPU-second with every rule asked twice")
    with open(found, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers.values())
    return answers


def plain(name):
    """Our reasons carry the rule's name, most of datatrove's do not."""
    for prefix in ("gopher_", "c4_", "fineweb_"):
        name = name.removeprefix(prefix) if name else name
    return name


def lines(text):
    """A text without what our normalisation takes away."""
    return "\n".join(line.rstrip() for line in (text or "").rstrip().split("\n"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("forebay", type=Path, nargs="?", default=Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/forebay")
    options = parser.parse_args()
    options.core = os.cpu_count() - 1
    options.work.mkdir(parents=True, exist_ok=True)
    corpus = documents(options)
    theirs, failed = reference(options, corpus), False
    for rule in [*RULES, "all"]:
        own = ours(options, corpus, RULES if rule == "all" else [rule])
        if set(own) != set(theirs):
            sys.exit(f"{len(set(own) ^ set(theirs))} documents are on one side only")
        pairs = {key: (plain(theirs[key][rule][0]), plain(own[key][0])) for key in theirs}
        differing = [key for key, (a, b) in pairs.items() if a != b]
        texts = [key for key, (a, b) in pairs.items() if not a and not b and lines(theirs[key][rule][1]) != lines(own[key][1])]
        share = 1 - len(differing) / len(theirs)
        failed |= share < LIMIT
        print(f"{rule:18} {len(theirs) - len(differing)}/{len(theirs)} agree, {share:.4%}; of the kept {len(texts)} have another text")
        print(f"    left out by datatrove: {dict(Counter(a for a, _ in pairs.values() if a))}")
        for (a, b), times in Counter(pairs[key] for key in differing).most_common():
            print(f"    datatrove {a}, ours {b}: {times}")
        for key in [*differing[:3], *texts[:3]]:
            print(f"    {key}: datatrove {str(theirs[key][rule])[:90]!r}, ours {str(own[key])[:90]!r}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
