"""ChestX-Reasoner in JAX: supervised fine-tuning and GRPO with process rewards for chest X-ray reasoning."""
