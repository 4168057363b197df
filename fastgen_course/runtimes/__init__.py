"""Run a trained model elsewhere than in eager PyTorch."""
