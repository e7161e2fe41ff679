"""What proves the GPUs: a verdict with a cause and a remedy, on any machine."""
