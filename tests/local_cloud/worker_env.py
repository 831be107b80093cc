"""The environment of a worker: what RunPod sets in its container, and what a deployment of the product sets."""

from collections.abc import Mapping
from pathlib import Path

from tests.local_cloud.settings import LocalSettings

# Two engines share this machine. On a processor each keeps to one thread wherever the system puts it (their own
# choice of a core would be the same one), and compiles nothing: that takes longer than what tests run.
VLLM_SHARED = {
    "TENSOR_PARALLEL_SIZE": "1",
    "GPU_MEMORY_UTILIZATION": "0.4",
    # As the model images set them.
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",
}
VLLM_WITHOUT_GPU = {
    "ENFORCE_EAGER": "true",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
GPU_DEVICE = Path("/dev/nvidiactl")


def engine_env(endpoint: str, settings: LocalSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """What makes an endpoint's real engine fit this machine, where nobody said otherwise; and its model."""
    if settings.engine != "vllm":
        return {}
    fitting = VLLM_SHARED if GPU_DEVICE.exists() else {**VLLM_SHARED, **VLLM_WITHOUT_GPU}
    model = settings.models.get(endpoint)
    return {
        **{name: text for name, text in fitting.items() if name not in inherited},
        **({"MODEL_NAME": model} if model else {}),
    }


def platform_env(
    url: str, endpoint: str, worker_id: str, worker_key: str, ping_interval_ms: int
) -> dict[str, str]:
    """The variables of the platform. The SDK fills in `$ID` and `$RUNPOD_POD_ID` and appends `&...` to each URL."""
    base = f"{url}/v2/{endpoint}"
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=local",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=local",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=local",
        "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID?gpu=local",
        "RUNPOD_PING_INTERVAL": str(ping_interval_ms),
        "RUNPOD_AI_API_KEY": worker_key,
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint,
        # The SDK's own checks want the internet, 4 GB of free memory and a GPU.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }


def product_env(
    url: str,
    api_key: str,
    redis: Mapping[str, str],
    webhook_token: str,
    storage: Mapping[str, str],
    settings: LocalSettings,
) -> dict[str, str]:
    """The variables of a deployment; those of Redis and S3 only where these run."""
    env = {
        "RUNPOD_API_KEY": api_key,
        "MISTRAL_BASE_URL": f"{url}/v2/mistral",
        "LLAMA_BASE_URL": f"{url}/v2/llama",
        "ENGINE": settings.engine,
    }
    if redis:
        env["UPSTASH_REDIS_REST_URL"] = redis["url"]
        env["UPSTASH_REDIS_REST_TOKEN"] = redis["token"]
        env["WEBHOOK_TOKEN"] = webhook_token
    if storage:
        env["S3_ENDPOINT_URL"] = storage["endpoint_url"]
        env["S3_BUCKET"] = storage["bucket"]
        env["S3_ACCESS_KEY_ID"] = storage["access_key_id"]
        env["S3_SECRET_ACCESS_KEY"] = storage["secret_access_key"]
        env["S3_REGION"] = "us-east-1"
    return env
