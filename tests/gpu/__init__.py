"""What only a GPU can show; left out by default, run by `bash scripts/gpu.sh tests`."""
