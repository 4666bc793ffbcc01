"""What is told beside the status service: logs, metrics and notifications. None of it can stop or change a pass."""
