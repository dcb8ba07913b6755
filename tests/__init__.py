"""The tests; `python -m pytest` from the project's root."""
