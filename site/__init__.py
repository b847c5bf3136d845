"""Templates and hand-written pages of the documents, and what was recorded for them."""  # noqa: A005
