"""A RunPod queue endpoint on localhost: the REST API that callers use and the protocol that SDK workers speak."""
