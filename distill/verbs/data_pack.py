"""python -m distill data pack SOURCE ...: plain text as one array of token ids, to pre-train on."""

import argparse
import logging
import time
from pathlib import Path

from data_utils.corpus.pack import Packed, pack
from distill.progress import bar
from models.pretrained import load_tokenizer

MUCH_HELD_OUT = 0.05  # of the tokens
logger = logging.getLogger(__name__)


def run(given: argparse.Namespace) -> None:
    """Pack, and print what the corpus holds."""
    started = time.monotonic()
    packed = pack(given.source, load_tokenizer(given.tokenizer), Path(given.output_dir), given.documents, bar=bar)
    print("\n".join(told(packed, time.monotonic() - started)))
    share = packed.corpus.held_out_share
    if share > MUCH_HELD_OUT:
        logger.warning("%s: %.0f %% of the text is held out and trains nothing, since few documents hold most of it: part it into more documents "
                       "(--documents line, or blank: what blank lines part), into another --output_dir", packed.corpus.folder, 100 * share)


def told(packed: Packed, seconds: float) -> list[str]:
    """The lines that tell what was packed and what was left out."""
    corpus, facts = packed.corpus, packed.facts
    sources = len(facts["settings"]["sources"])
    lines = [f"{corpus.folder}: {corpus.documents:,} documents, {corpus.tokens:,} tokens ({facts['dtype']}) of {facts['bytes'] / 1e6:,.1f} MB of "
             f"text in {sources:,} source{'s' * (sources > 1)}"]
    lines.append(f"held out: {len(corpus.split()[1]):,} of the documents, {100 * corpus.held_out_share:.2g} % of the tokens")
    dropped = {"blank rows": facts["blank_rows"], "sources without a document": facts["empty_sources"],
               "documents without a token": facts["documents_without_tokens"]}
    left_out = ", ".join(f"{count:,} {name}" for name, count in dropped.items() if count)
    if left_out:
        lines.append(f"left out: {left_out}")
    if facts["cuts_inside_words"]:
        lines.append(f"cut {facts['cuts_inside_words']:,} times inside a word: there the text has no white space for tens of thousands of characters")
    lines.append(f"{packed.made:,} tokens in {seconds:.1f} s, {packed.made / seconds:,.0f} tokens/s" if packed.made
                 else "it was finished before: nothing was done")
    return lines
