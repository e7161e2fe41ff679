"""SQLite databases with a log, each saved as one whole file."""
