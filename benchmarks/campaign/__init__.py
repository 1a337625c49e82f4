"""What `benchmarks/reliability.py` and those beside it share: made inputs, and a plain reading of them."""
