"""What each process of the local cloud has used: CPU seconds and peak memory."""

from pathlib import Path

import psutil


def usage(pid: int) -> dict[str, object]:
    """`{pid, cpu_s, peak_rss_bytes}`; CPU counts the children too (a worker's ping process), memory does not."""
    try:
        process = psutil.Process(pid)
        cpu_s = sum(_cpu_s(member) for member in [process, *process.children(recursive=True)])
        return {"pid": pid, "cpu_s": round(cpu_s, 2), "peak_rss_bytes": _peak_rss_bytes(process)}
    except psutil.NoSuchProcess:
        return {"pid": pid, "cpu_s": 0.0, "peak_rss_bytes": 0}


def own_usage(pid: int) -> dict[str, object]:
    """The same without the children."""
    process = psutil.Process(pid)
    return {"pid": pid, "cpu_s": round(_cpu_s(process), 2), "peak_rss_bytes": _peak_rss_bytes(process)}


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _peak_rss_bytes(process: psutil.Process) -> int:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    except OSError:
        # No /proc, as on macOS: the current size is the best there is.
        return int(process.memory_info().rss)
    peak_kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), "0")
    return int(peak_kib) * 1024
