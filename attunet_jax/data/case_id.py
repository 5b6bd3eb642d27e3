"""The id of a case: what may be one, and how it is made of a name."""

import hashlib
import unicodedata

_MAX_BYTES = 180  # a file's name holds 255, with endings and what stands before
# Letters of any script, their marks (such as vowel signs) and decimal digits.
_LETTERS = {"Lu", "Ll", "Lt", "Lm", "Lo"}
_WORD = {*_LETTERS, "Mn", "Mc", "Nd"}


def case_id_of(name: str) -> str:
    """Returns the id of a case for the name of its scan, or its path below the input.

    Letters and digits of any script stay, composed (NFC); other characters become "_".
    The id is a safe file name on other machines: no separators, no leading dot, not too
    long. Two names may have one id: who asks for several must compare them.
    """
    text = unicodedata.normalize("NFC", name)
    plain = "".join(
        c if c in "._-" or unicodedata.category(c) in _WORD else "_" for c in text
    )
    if not is_case_id(plain):
        plain = f"case{plain}"
    if len(plain.encode()) > _MAX_BYTES:
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        head = plain.encode()[: _MAX_BYTES - 9].decode("utf-8", "ignore")
        plain = f"{head}_{digest}"
    return plain


def is_case_id(text: object) -> bool:
    """Returns whether `text` can be the id of a case, as `case_id_of` makes them."""
    if not isinstance(text, str) or not text:
        return False
    kinds = [unicodedata.category(c) for c in text]
    return kinds[0] in {*_LETTERS, "Nd"} and all(
        c in "._-" or kind in _WORD for c, kind in zip(text, kinds, strict=True)
    )
