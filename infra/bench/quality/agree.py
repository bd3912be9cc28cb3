"""Do our quality rules decide as datatrove's do? Per rule: documents, agreement, and every kind of difference.

    python -m venv venv && venv/bin/pip install 'datatrove[processing]==0.10.0' spacy==3.8.18
    venv/bin/python agree.py reference corpus.jsonl reference.jsonl   # slow: about 90 documents a CPU-second
    OURS corpus.jsonl > ours.jsonl                                    # one JSON line a document, fields as below
    venv/bin/python agree.py compare corpus.jsonl reference.jsonl ours.jsonl

A document is a JSON line with `id` and `text`. A decision is a JSON line with `id`, for each rule its reason (null: kept),
`c4_text` (the edited text, null if dropped), `chain` (the reason of the first rule that objects, each on the text that the
one before left), `words` and `words_digest` (of the words joined by line ends). Each rule is asked about the original text,
with datatrove's defaults (English), but for C4's terminal punctuation, which FineWeb turns off.
Fails if a rule agrees on fewer than 99.9 % of the documents.
"""
import hashlib
import json
import sys
import time
from collections import Counter

RULES = ["gopher_repetition", "gopher_quality", "c4", "fineweb"]
LIMIT = 0.999


def rows(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def reason(verdict):
    """datatrove answers True, or False with a reason."""
    return None if verdict is True else verdict[1] if isinstance(verdict, tuple) else "removed"


def decide(document_filter, document):
    try:
        return reason(document_filter.filter(document))
    except ZeroDivisionError:
        return "division_by_zero"


def reference(corpus, out):
    from datatrove.data import Document
    from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.utils.text import split_into_words

    filters = dict(zip(RULES, [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter()]))
    start, count = time.process_time(), 0
    with open(out, "w", encoding="utf-8") as file:
        for row in rows(corpus):
            new = lambda: Document(text=row["text"], id=row["id"])
            answer = {"id": row["id"]}
            words = split_into_words(row["text"])
            answer["words"], answer["words_digest"] = len(words), hashlib.md5("\n".join(words).encode()).hexdigest()
            chain = new()
            for rule, document_filter in filters.items():
                document = new()
                answer[rule] = decide(document_filter, document)
                if rule == "c4":
                    answer["c4_text"] = None if answer[rule] else document.text
            for document_filter in filters.values():
                answer["chain"] = decide(document_filter, chain)
                if answer["chain"]:
                    break
            file.write(json.dumps(answer, ensure_ascii=False) + "\n")
            count += 1
    print(f"{count} documents, {count / (time.process_time() - start):.0f} a CPU-second with every rule asked twice")


def plain(name):
    """Our reasons carry the rule's name, most of datatrove's do not."""
    for prefix in ("gopher_", "c4_", "fineweb_"):
        name = name.removeprefix(prefix) if name else name
    return name


def compare(corpus, reference_path, ours_path, show=3):
    texts = {row["id"]: row["text"] for row in rows(corpus)}
    theirs, ours = ({row["id"]: row for row in rows(path)} for path in (reference_path, ours_path))
    missing = set(theirs) ^ set(ours)
    if missing:
        sys.exit(f"{len(missing)} documents are on one side only, first {sorted(missing)[:3]}")
    failed = False
    for field in [*RULES, "chain", "c4_text", "words", "words_digest"]:
        clean = plain if field in RULES or field == "chain" else lambda value: value
        differing = [key for key in theirs if clean(theirs[key][field]) != clean(ours[key][field])]
        share = 1 - len(differing) / len(theirs)
        failed |= share < LIMIT and field in [*RULES, "chain"]
        dropped = Counter(plain(theirs[key][field]) for key in theirs if theirs[key][field]) if field in RULES else None
        print(f"{field:18} {len(theirs) - len(differing)}/{len(theirs)} agree, {share:.4%}" + (f"; datatrove: {dict(dropped)}" if dropped else ""))
        if field in RULES:
            for (a, b), times in Counter((plain(theirs[key][field]), plain(ours[key][field])) for key in differing).most_common():
                print(f"    datatrove {a}, ours {b}: {times}")
        for key in differing[:show]:
            print(f"    {key}: datatrove {str(theirs[key][field])[:80]!r}, ours {str(ours[key][field])[:80]!r}; text {texts[key][:60]!r}")
    sys.exit(failed)


if __name__ == "__main__":
    {"reference": reference, "compare": compare}[sys.argv[1]](*sys.argv[2:])
