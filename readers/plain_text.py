"""Marks of typesetting in questions and answers, read as the plain ones that a keyboard has.

docs/FORMATS.md section 3 lists them. VQA-RAD's own records have none of them.
"""

import re
import unicodedata

PLAIN = {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}  # full-width forms
PLAIN |= dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02b9\u02bc\u00b4`\uff40", "'")
PLAIN |= dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"')
PLAIN |= dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63", "-")
PLAIN |= dict.fromkeys("\u00a0\u202f\u205f\u3000", " ")
PLAIN |= {chr(code): " " for code in range(0x2000, 0x200B)}  # spaces of other widths
PLAIN |= dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", "")  # marks without width
PLAIN |= {"\u2026": "...", "\u3002": ".", "\u3001": ","}
_TABLE = str.maketrans(PLAIN)


# Chinese characters and Japanese syllables, which stand without spaces between words
_ALONE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def spaced(text):
    """The text with a space on both sides of each Chinese or Japanese character."""
    return _ALONE.sub(r" \g<0> ", text)


def plain_text(text):
    """The text with plain marks, and each accent composed with its letter (NFC)."""
    return unicodedata.normalize("NFC", text.translate(_TABLE))
