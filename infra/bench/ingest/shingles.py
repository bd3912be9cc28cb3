"""Exact Jaccard similarity of texts, written apart from the program: sets of 5-word shingles, where a word is a run of
letters, digits and underscores, and every character in scripts without spaces."""
import regex

SPACELESS = "\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff\u0e00-\u0eff"
# A character is of a word if it is alphabetic or a number (Unicode's properties), or an underscore.
WORDS = regex.compile(f"(?V1)[[\\p{{Alphabetic}}\\p{{N}}_]&&[{SPACELESS}]]|[[\\p{{Alphabetic}}\\p{{N}}_]--[{SPACELESS}]]+")


def shingles(text, width=5):
    """The set of shingles; a text of fewer words is one."""
    words = WORDS.findall(text)
    width = max(1, min(width, len(words)))
    return {tuple(words[at : at + width]) for at in range(len(words) - width + 1)} or {text}


def jaccard(left, right):
    """Of two sets."""
    return len(left & right) / len(left | right)
