"""The schedule that calls `reconcile`: RunPod has no timer, so QStash or any cron is it."""

from __future__ import annotations

import json
from urllib.parse import quote

from definitions import Schedule
from http_calls import Http

QSTASH_URL = "https://qstash.upstash.io"
BODY = {"input": {"operation": "reconcile"}}


def set_schedule(http: Http, schedule: Schedule, batch_url: str, key: str) -> None:
    """Creates the schedule, or gives the one of that id these values; either way the same call. `key` is the RunPod
    key that QStash will send."""
    headers = {
        "Upstash-Schedule-Id": schedule.id,
        "Upstash-Cron": schedule.cron,
        "Upstash-Method": "POST",
        # The next call does the same, so a failed one is not repeated.
        "Upstash-Retries": "0",
        "Upstash-Forward-Authorization": f"Bearer {key}",
    }
    # QStash takes the destination as it is, at the end of the path.
    http.send("POST", f"/v2/schedules/{quote(batch_url, safe=':/')}/run", BODY, headers=headers)


def cron_line(schedule: Schedule, batch_url: str) -> str:
    """The same as a line for cron. It names the key's variable and does not hold the key."""
    return (
        f"{schedule.cron} curl -sS -m 30 -X POST {batch_url}/run"
        ' -H "Authorization: Bearer $RUNPOD_API_KEY" -H "Content-Type: application/json"'
        f" -d '{json.dumps(BODY)}'"
    )
