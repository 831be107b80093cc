"""Stand-ins for what the deploy tool talks to: RunPod's REST API v2, endpoints' /health, QStash."""
