"""What is particular to IMDb: reviews as web pages had them."""

LINE_BREAK = "<br />"


def review_text(fields: dict[str, str]) -> tuple[str]:
    """The review, a space for each line break.

    The breaks are layout that no pre-training text has (`<br /><br />` parts paragraphs): as the pieces < br / > they take 5.2 % of
    the tokens of train, by BERT's vocabulary. The few other tags (<i>) are the reviewers' own and stay.
    """
    return (fields["text"].replace(LINE_BREAK, " "),)
