"""Smaller and faster without another network: quantization, pruning, distillation."""
