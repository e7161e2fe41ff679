"""Keeps what matters of a notebook's fast home on Persist, and brings it back."""
