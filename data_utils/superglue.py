"""What is particular to SuperGLUE's tasks: JSON records that hold several rows, and the texts that are made of a row.

    COPA      [CLS] premise what was the cause? [SEP] choice [SEP]               once for each of the two choices
    WiC       [CLS] word : sentence with * word * [SEP] sentence with * word * [SEP]
    WSC       [CLS] text with * pronoun * [SEP] noun phrase [SEP]
    MultiRC   [CLS] paragraph [SEP] question answer [SEP]                         a row for each answer
    ReCoRD    [CLS] passage [SEP] query with an entity in the gap [SEP]           a row for each entity

Records are JSON objects in the official layout or rows of the Hub; fields are what TSV files have: strings by column name.
Functions raise ValueError where a record does not fit; the reader says where it stands.
"""

import re
from collections.abc import Iterator, Mapping

from data_utils.answers import EXACT, credit

Fields = dict[str, str]
COPA_QUESTIONS = {"cause": "What was the cause?", "effect": "What happened as a result?"}
GAP = "@placeholder"


# ---- records -> fields


def flat(record: Mapping) -> Iterator[Fields]:
    """One row, its values as strings: true and false as JSON spells them; null is no value."""
    yield {name: spelled(value) for name, value in record.items() if value is not None}


def spelled(value) -> str:
    """A JSON value as a TSV file has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def wsc_row(record: Mapping) -> Iterator[Fields]:
    """One row; the spans stand in an object of their own in the official files."""
    yield from flat({**record, **record.get("target", {})})


def multirc_rows(record: Mapping) -> Iterator[Fields]:
    """A row for each answer of each question to the passage; the Hub has one already."""
    if "paragraph" in record:
        indices = {f"{name}_idx": value for name, value in record["idx"].items()}
        yield from flat({**record, **indices})
        return
    for question in record["passage"]["questions"]:
        for answer in question["answers"]:
            yield from flat({"paragraph": record["passage"]["text"], "question": question["question"], "answer": answer["text"],
                             "paragraph_idx": record["idx"], "question_idx": question["idx"], "answer_idx": answer["idx"],
                             **({"label": answer["label"]} if "label" in answer else {})})


def record_rows(record: Mapping) -> Iterator[Fields]:
    """A row for each entity that is named in the passage, for each query. Its label is 1 where the entity is an answer,
    its credit as of an answer to a question (answers.py)."""
    if "entities" in record:  # the Hub: one query, texts in place of spans
        yield from _candidates(record["passage"], record["query"], record["entities"], record.get("answers"), record["idx"]["query"])
        return
    text = record["passage"]["text"]
    entities = [text[span["start"]:span["end"] + 1] for span in record["passage"]["entities"]]
    for query in record["qas"]:
        answers = [answer["text"] for answer in query["answers"]] if "answers" in query else None
        yield from _candidates(text, query["query"], entities, answers, query["idx"])


def _candidates(passage: str, query: str, entities: list[str], answers: list[str] | None, index: int) -> Iterator[Fields]:
    passage = passage.replace("\n@highlight\n", " ")  # here: all candidates hold one string
    for entity in dict.fromkeys(entities):
        fields = {"passage": passage, "query": query, "entity": entity, "query_idx": str(index)}
        if answers:
            worth = credit(entity, answers)
            fields |= {"label": str(int(worth == EXACT)), "credit": str(worth)}
        yield fields


# ---- fields -> texts


def copa_texts(fields: Fields) -> tuple[str, ...]:
    """The premise with its question, and the two choices."""
    if fields["question"] not in COPA_QUESTIONS:
        raise ValueError(f"expected {' or '.join(COPA_QUESTIONS)} in column 'question', found {fields['question']!r}")
    return f"{fields['premise']} {COPA_QUESTIONS[fields['question']]}", fields["choice1"], fields["choice2"]


def wic_texts(fields: Fields) -> tuple[str, str]:
    """The word and the first sentence, the second sentence; the word is marked in both."""
    one, two = (_marked(fields[f"sentence{n}"], _number(fields, f"start{n}"), _number(fields, f"end{n}")) for n in "12")
    return f"{fields['word']} : {one}", two


def wsc_texts(fields: Fields) -> tuple[str, str]:
    """The text with the pronoun marked, and the noun phrase that it may stand for.

    The index counts words; where the pronoun stands elsewhere (a few rows are off by one) the nearest place is taken.
    """
    text, pronoun = fields["text"], fields["span2_text"]
    if not pronoun.strip() or not fields["span1_text"].strip():
        raise ValueError("expected a text in columns 'span1_text' and 'span2_text', found an empty one")
    words = [word.start() for word in re.finditer(r"\S+", text)]
    index = _number(fields, "span2_index")
    if index >= len(words):
        raise ValueError(f"expected a word index below {len(words)} in column 'span2_index', found {index}")
    places = [found.span() for found in re.finditer(rf"(?<!\w){re.escape(pronoun)}(?!\w)", text, re.IGNORECASE)]
    if not places:
        raise ValueError(f"expected {pronoun!r}, column 'span2_text', in the text: {text[:80]!r}")
    return _marked(text, *min(places, key=lambda place: abs(place[0] - words[index]))), fields["span1_text"]


def multirc_texts(fields: Fields) -> tuple[str, str]:
    """The paragraph; the question with the answer."""
    return fields["paragraph"], f"{fields['question']} {fields['answer']}"


def record_texts(fields: Fields) -> tuple[str, str]:
    """The passage; the query with the entity in its gap."""
    if GAP not in fields["query"]:
        raise ValueError(f"expected {GAP} in column 'query', found {fields['query'][:80]!r}")
    return fields["passage"], fields["query"].replace(GAP, fields["entity"])


def _marked(text: str, start: int, end: int) -> str:
    """The text with stars around [start : end]: words of their own, so that no tokenizer joins them to the word."""
    if not 0 <= start < end <= len(text):
        raise ValueError(f"expected a span within the {len(text)} letters of the text, found {start} to {end}")
    return f"{text[:start]}* {text[start:end]} *{text[end:]}"


def _number(fields: Fields, name: str) -> int:
    if not re.fullmatch(r"\d+", fields[name]):
        raise ValueError(f"expected a whole number in column {name!r}, found {fields[name]!r}")
    return int(fields[name])
