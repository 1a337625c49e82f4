"""What `benchmarks/reliability.py` and the benchmarks beside it share: made inputs, and an independent reading of them."""
