"""The worker's service on Hypha: its methods, who may call them, and what people and reconcilers ask."""
