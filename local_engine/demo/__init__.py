"""Demonstration models: their tasks, tokenizer, training, evaluation and shipped checkpoints."""
