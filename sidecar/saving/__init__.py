"""How changes become safe: in which order, in which batches, by whose hands."""
