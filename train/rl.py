"""Reinforcement learning from a conservative reward (Kang et al. 2024, arXiv 2403.05612), through TRL's RLOO."""
