"""Rerankers: the shipped interaction model, adapters of other models, and the layer-by-layer engine that runs them."""
