from runpod import serverless as serverless

class RunPodLogger:
    level: str
    def set_level(self, new_level: str) -> None: ...
