"""The engine: one loop, checkpoint, progress, plan and last pass for all models."""
