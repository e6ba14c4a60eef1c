"""Hydra-configured transfer-learning experiments for image classification."""
