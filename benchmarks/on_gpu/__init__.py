"""What `benchmarks/gpu.py` measures, keeps and says."""
