"""Compressed context memory: what a conversation said, as a few key/value slots that its model attends to.

Source: Kim et al., "Compressed Context Memory For Online Language Model Interaction", ICLR 2024 (arXiv 2312.03414).
"""
