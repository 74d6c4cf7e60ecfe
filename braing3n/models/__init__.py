"""Transformer blocks, masked autoencoder, tokenizer, diffusion transformers."""
