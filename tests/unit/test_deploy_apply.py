"""`./build.sh deploy` against a fake of RunPod's API v2 that refuses as documented, and a local Upstash."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.conftest import UpstashAddress
from tests.deploy_cloud.deploying import HF_TOKEN, KEY, Deploying, deploying, redis

MISTRAL, LLAMA, BATCH = "llm-batch-mistral", "llm-batch-llama", "llm-batch-batch-api"


@pytest_asyncio.fixture
async def cloud(upstash_server: UpstashAddress) -> AsyncIterator[Deploying]:
    async with deploying(upstash_server) as running:
        yield running


@pytest_asyncio.fixture
async def deployed(cloud: Deploying) -> Deploying:
    assert await cloud.run("--yes") == 0, cloud.said
    cloud.runpod.calls.clear()
    return cloud


def writes(cloud: Deploying) -> list[str]:
    return [f"{call.method} {call.path}" for call in cloud.runpod.writes()]


async def test_the_first_apply_creates_everything_and_says_where_it_is(cloud: Deploying) -> None:
    assert await cloud.run("--yes") == 0, cloud.said
    [volume] = cloud.runpod.items["network-volumes"].values()
    assert (volume["name"], volume["size"]) == ("llm-batch-models", 300)
    mistral, llama, batch = (cloud.runpod.endpoint(name) for name in (MISTRAL, LLAMA, BATCH))
    assert mistral["workers"] == {"min": 1, "max": 10, "idleTimeout": 60}
    assert llama["gpu"]["pools"] == ["AMPERE_80"]
    assert llama["gpu"]["count"] == 2
    assert mistral["networkVolumes"] == llama["networkVolumes"] == [volume["id"]]
    assert batch["networkVolumes"] == []
    assert batch["image"] == "docker.io/you/llm-batch-batch-api:1.0"
    jobs = cloud.runpod.url + "/jobs/"
    for endpoint in (mistral, llama, batch):
        assert endpoint["flashboot"] == "FLASHBOOT"
        assert endpoint["env"]["MISTRAL_BASE_URL"] == jobs + mistral["id"]
        assert endpoint["env"]["LLAMA_BASE_URL"] == jobs + llama["id"]
        assert endpoint["env"]["UPSTASH_REDIS_REST_URL"] == cloud.upstash.url
    assert ("HF_TOKEN" in llama["env"], "HF_TOKEN" in batch["env"]) == (True, False)
    assert f"LOCAL_BATCH_URL={jobs}{batch['id']}\nRUNPOD_API_KEY=$RUNPOD_API_KEY" in cloud.said
    assert '"operation": "reconcile"' in cloud.said
    assert cloud.said.endswith("ready\n")


async def test_no_worker_ever_starts_with_incomplete_settings(cloud: Deploying) -> None:
    await cloud.run("--yes")
    for call in cloud.runpod.writes():
        if "workers" in (call.body or {}) and call.body["workers"]["max"] > 0:
            assert {"MISTRAL_BASE_URL", "LLAMA_BASE_URL", "WEBHOOK_TOKEN"} <= call.body["env"].keys()


async def test_the_second_apply_changes_nothing(deployed: Deploying) -> None:
    before = await deployed.redis("ACL", "GETUSER", "inbox")
    assert await deployed.run("--yes") == 0
    assert writes(deployed) == []
    assert (await deployed.redis("ACL", "GETUSER", "inbox")).json() == before.json()
    plan = [line.split()[0] for line in deployed.said.splitlines()[:5]]
    assert plan == ["leave"] * 5


async def test_a_changed_field_patches_only_it(deployed: Deploying) -> None:
    mistral = deployed.runpod.endpoint(MISTRAL)
    mistral["workers"]["max"] = 2
    assert await deployed.run("--yes") == 0
    [call] = deployed.runpod.writes()
    assert (call.method, call.path) == ("PATCH", f"/v2/serverless/{mistral['id']}")
    assert call.body == {"workers": {"min": 1, "max": 10, "idleTimeout": 60}}
    assert mistral["workers"]["max"] == 10


async def test_a_new_tag_patches_the_images_and_says_that_live_workers_keep_theirs(
    deployed: Deploying,
) -> None:
    assert await deployed.run("--yes", "--tag=1.1") == 0
    assert [call.body.keys() for call in deployed.runpod.writes()] == [{"image"}] * 3
    assert "new workers only" in deployed.said


async def test_going_back_from_a_variant_removes_its_variables(deployed: Deploying) -> None:
    assert await deployed.run("--yes", "--variant=llama=awq") == 0
    awq = deployed.env_of(LLAMA)
    assert (awq["QUANTIZATION"], awq["TENSOR_PARALLEL_SIZE"]) == ("awq_marlin", "1")
    # Every process cuts shards of every model.
    assert {deployed.env_of(name)["LLAMA_SLOTS"] for name in (MISTRAL, LLAMA, BATCH)} == {"70"}
    assert await deployed.run("--yes") == 0
    assert "-QUANTIZATION" in deployed.said
    assert "QUANTIZATION" not in deployed.env_of(LLAMA)
    assert "LLAMA_SLOTS" not in deployed.env_of(BATCH)


async def test_what_the_shell_sets_wins_over_a_variant(cloud: Deploying) -> None:
    cloud.environment["LLAMA_SLOTS"] = "33"
    assert await cloud.run("--yes", "--variant=llama=awq") == 0
    assert cloud.env_of(BATCH)["LLAMA_SLOTS"] == "33"


async def test_a_dry_run_only_reads(cloud: Deploying) -> None:
    assert await cloud.run("--dry-run") == 0
    assert cloud.runpod.methods().keys() == {"GET"}
    assert (await cloud.redis("ACL", "GETUSER", "inbox")).json() == {"result": None}


async def test_a_dry_run_needs_neither_keys_nor_a_network(cloud: Deploying) -> None:
    cloud.environment = {"RUNPOD_API_URL": "http://127.0.0.1:9"}
    assert await cloud.run("--dry-run") == 0
    assert "create  endpoint  llm-batch-llama" in cloud.said
    assert "UPSTASH_REDIS_REST_URL is required" in cloud.said


async def test_missing_settings_are_told_together_before_any_call(cloud: Deploying) -> None:
    cloud.environment |= {"HF_TOKEN": "", "TICK_S": "soon"}
    assert await cloud.run("--yes") == 2
    assert "HF_TOKEN is required" in cloud.said
    assert "TICK_S must be a number" in cloud.said
    assert cloud.runpod.calls == []


async def test_without_a_yes_nothing_is_changed(cloud: Deploying) -> None:
    cloud.answer = "n"
    assert await cloud.run() == 0
    assert "nothing was changed" in cloud.said
    cloud.answer = None
    assert await cloud.run() == 2
    assert "--yes" in cloud.said
    assert writes(cloud) == []


async def test_a_lost_reply_to_a_create_does_not_create_twice(cloud: Deploying) -> None:
    cloud.runpod.broken = {"POST serverless": ["lost", "lost", "lost"], "POST network-volumes": ["lost"]}
    assert await cloud.run("--yes") == 0, cloud.said
    names = [item["name"] for item in cloud.runpod.items["serverless"].values()]
    assert sorted(names) == [BATCH, LLAMA, MISTRAL]
    assert len(cloud.runpod.items["network-volumes"]) == 1


async def test_an_outage_is_retried_and_a_429_waits_as_asked(cloud: Deploying) -> None:
    cloud.runpod.broken = {
        "POST serverless": [503, 429],
        "GET serverless": [502],
        "PATCH serverless": [500, 429],
    }
    assert await cloud.run("--yes") == 0, cloud.said
    assert len(cloud.runpod.items["serverless"]) == 3
    assert cloud.paused_s.count(7.0) == 2


async def test_an_outage_that_lasts_ends_in_one_line(cloud: Deploying) -> None:
    cloud.runpod.broken = {"GET serverless": [503] * 9}
    assert await cloud.run("--yes") == 1
    assert cloud.said == "deploy: RunPod answered GET with 503: Refused; not now, Bearer ***\n"


async def test_a_refusal_is_one_line_with_its_faults(cloud: Deploying) -> None:
    cloud.runpod.broken = {"POST network-volumes": [422]}
    assert await cloud.run("--yes") == 1
    assert cloud.said.splitlines()[-1].startswith("deploy: RunPod answered POST with 422: Refused; ")
    assert [call.path for call in cloud.runpod.writes()] == ["/v2/network-volumes"]


async def test_an_interrupted_run_is_finished_by_the_next(cloud: Deploying) -> None:
    cloud.runpod.broken = {"PATCH serverless": [422]}
    assert await cloud.run("--yes") == 1
    assert cloud.runpod.endpoint(MISTRAL)["workers"]["max"] == 0
    assert await cloud.run("--yes") == 0, cloud.said
    assert cloud.runpod.endpoint(MISTRAL)["workers"]["max"] == 10
    assert len(cloud.runpod.items["serverless"]) == 3


async def test_two_endpoints_of_one_name_are_the_owners_to_settle(deployed: Deploying) -> None:
    deployed.runpod.items["serverless"]["twin"] = {**deployed.runpod.endpoint(MISTRAL), "id": "twin"}
    assert await deployed.run("--yes") == 1
    assert "2 endpoints named llm-batch-mistral" in deployed.said


async def test_an_endpoint_is_known_by_its_flashboot_name_too(deployed: Deploying) -> None:
    deployed.runpod.endpoint(MISTRAL)["name"] += " -fb"
    assert await deployed.run("--yes") == 0
    assert writes(deployed) == []


async def test_only_touches_the_endpoint_it_names(deployed: Deploying) -> None:
    assert await deployed.run("--yes", "--tag=1.1", "--only=llama") == 0
    assert writes(deployed) == [f"PATCH /v2/serverless/{deployed.runpod.endpoint(LLAMA)['id']}"]


async def test_only_asks_for_the_endpoints_whose_addresses_it_needs(cloud: Deploying) -> None:
    assert await cloud.run("--yes", "--only=batch-api") == 2
    assert "mistral, llama must exist first" in cloud.said
    assert writes(cloud) == []


async def test_the_wait_for_workers_ends_with_what_health_says(cloud: Deploying) -> None:
    cloud.runpod.health[LLAMA] = {"ready": 0, "initializing": 0, "throttled": 2, "unhealthy": 1}
    assert await cloud.run("--yes", "--wait-s=60") == 1
    assert "llama is not ready after 60 s: 2 throttled, 1 unhealthy" in cloud.said
    assert "mistral is not ready" not in cloud.said
    assert sum(cloud.paused_s) == 60


async def test_the_webhooks_token_can_push_to_the_inbox_and_do_nothing_else(deployed: Deploying) -> None:
    token = deployed.env_of(BATCH)["WEBHOOK_TOKEN"]
    url = deployed.upstash.url
    assert (await redis(url, token, "RPUSH", "inbox:3", "{}")).json() == {"result": 1}
    for command in (
        ["RPUSH", "batches", "x"],
        ["RPUSH", "inbox:8", "x"],
        ["LRANGE", "inbox:3", "0", "-1"],
        ["DEL", "inbox:3"],
    ):
        answer = await redis(url, token, *command)
        assert answer.status_code == 400
        assert "NOPERM" in answer.json()["error"]
    await deployed.redis("DEL", "inbox:3")


async def test_a_rotated_token_reaches_all_endpoints_and_the_old_one_stops(deployed: Deploying) -> None:
    old = deployed.env_of(BATCH)["WEBHOOK_TOKEN"]
    assert await deployed.run("--yes", "--rotate-webhook-token") == 0
    [new] = {deployed.env_of(name)["WEBHOOK_TOKEN"] for name in (MISTRAL, LLAMA, BATCH)}
    assert new != old
    assert (await redis(deployed.upstash.url, old, "RPUSH", "inbox:0")).status_code == 401
    assert (await redis(deployed.upstash.url, new, "RPUSH", "inbox:0")).status_code == 400


async def test_a_token_that_may_push_to_more_than_the_inboxes_is_replaced(deployed: Deploying) -> None:
    old = deployed.env_of(LLAMA)["WEBHOOK_TOKEN"]
    await deployed.redis("ACL", "SETUSER", "inbox", "~inbox:*")
    assert await deployed.run("--yes") == 0
    token = deployed.env_of(LLAMA)["WEBHOOK_TOKEN"]
    assert (await redis(deployed.upstash.url, old, "RPUSH", "inbox:0")).status_code == 401
    assert "NOPERM" in (await redis(deployed.upstash.url, token, "RPUSH", "inbox:x", "{}")).text


async def test_a_token_that_stopped_working_is_replaced(deployed: Deploying) -> None:
    await deployed.redis("ACL", "DELUSER", "inbox")
    assert await deployed.run("--yes") == 0
    token = deployed.env_of(LLAMA)["WEBHOOK_TOKEN"]
    assert (await redis(deployed.upstash.url, token, "RPUSH", "inbox:0")).status_code == 400


async def test_no_secret_is_ever_printed(cloud: Deploying) -> None:
    cloud.environment |= {"WEBHOOK_TOKEN": "", "S3_SECRET_ACCESS_KEY": "s3-the-secret-key"}
    cloud.environment |= {
        "S3_ENDPOINT_URL": "https://s3.example",
        "S3_BUCKET": "b",
        "S3_ACCESS_KEY_ID": "AKIA-the-id",
    }
    for arguments in (
        ["--dry-run"],
        ["--yes"],
        ["--yes"],
        ["--yes", "--rotate-webhook-token"],
        ["--dry-run"],
    ):
        assert await cloud.run(*arguments) == 0, cloud.said
    cloud.runpod.key = "another"
    assert await cloud.run("--yes") == 1
    tokens = {
        call.body["env"]["WEBHOOK_TOKEN"]
        for call in cloud.runpod.writes()
        if "WEBHOOK_TOKEN" in (call.body or {}).get("env", {})
    }
    assert len(tokens) == 2
    for secret in {KEY, HF_TOKEN, cloud.upstash.token, "s3-the-secret-key", *tokens}:
        assert secret not in cloud.output


async def test_a_key_of_their_own_is_what_the_endpoints_get(cloud: Deploying) -> None:
    cloud.environment["RUNPOD_SERVICE_KEY"] = "rpa_may-only-call-endpoints"
    assert await cloud.run("--yes") == 0
    assert {cloud.env_of(name)["RUNPOD_API_KEY"] for name in (MISTRAL, LLAMA, BATCH)} == {
        "rpa_may-only-call-endpoints"
    }


async def test_with_a_qstash_token_the_schedule_is_set_up_once(cloud: Deploying) -> None:
    cloud.environment |= {"QSTASH_TOKEN": "qstash-the-token", "QSTASH_URL": cloud.runpod.url}
    assert await cloud.run("--yes") == 0, cloud.said
    assert await cloud.run("--yes") == 0
    [(name, schedule)] = cloud.runpod.schedules.items()
    assert name == "llm-batch-reconcile"
    assert schedule["destination"] == f"{cloud.runpod.url}/jobs/{cloud.runpod.endpoint(BATCH)['id']}/run"
    assert schedule["headers"]["Upstash-Cron"] == "* * * * *"
    assert schedule["headers"]["Upstash-Forward-Authorization"] == f"Bearer {KEY}"
    assert schedule["headers"]["Authorization"] == "Bearer qstash-the-token"
    assert schedule["body"] == {"input": {"operation": "reconcile"}}
    assert "crontab" not in cloud.said


async def test_a_volume_stays_where_it_is(deployed: Deploying) -> None:
    assert await deployed.run("--yes", "--data-center=US-KS-2") == 1
    assert "is in EU-RO-1 and can't move" in deployed.said
    [volume] = deployed.runpod.items["network-volumes"].values()
    volume |= {"dataCenter": "US-CA-2", "size": 200}
    assert await deployed.run("--yes") == 0
    assert volume["size"] == 300
    assert deployed.runpod.endpoint(LLAMA)["dataCenterIds"] == ["US-CA-2"]


async def test_a_private_registrys_credentials_are_named_by_id(cloud: Deploying) -> None:
    cloud.environment["RUNPOD_REGISTRY_ID"] = "reg1"
    assert await cloud.run("--yes") == 0
    assert {cloud.runpod.endpoint(name)["registry"] for name in (MISTRAL, LLAMA, BATCH)} == {"reg1"}


async def test_the_shells_values_win_over_the_files(cloud: Deploying, tmp_path: Path) -> None:
    file = tmp_path / "deploy.env"
    file.write_text("# settings\nexport LOG_LEVEL='DEBUG'\nTICK_S=3\n\nHF_TOKEN=of-the-file\n", "utf-8")
    assert await cloud.run("--yes", f"--env-file={file}") == 0, cloud.said
    env = cloud.env_of(LLAMA)
    assert (env["LOG_LEVEL"], env["TICK_S"], env["HF_TOKEN"]) == ("DEBUG", "3", HF_TOKEN)


async def test_an_engines_variable_of_the_shell_reaches_no_endpoint(cloud: Deploying) -> None:
    cloud.environment["MODEL_NAME"] = "another/model"
    assert await cloud.run("--yes") == 0
    assert cloud.env_of(LLAMA)["MODEL_NAME"] == "meta-llama/Meta-Llama-3-70B-Instruct"
    assert "MODEL_NAME" not in cloud.env_of(BATCH)


async def test_a_data_centre_without_the_gpus_is_warned_of_with_those_that_have_them(
    cloud: Deploying,
) -> None:
    assert await cloud.run("--dry-run") == 0
    assert "warning" not in cloud.said
    cloud.runpod.gpus = {"EU-RO-1": ["NVIDIA GeForce RTX 4090"], "US-KS-2": cloud.runpod.gpus["EU-RO-1"]}
    assert await cloud.run("--dry-run") == 0
    assert "EU-RO-1 lists no NVIDIA A100-SXM4-80GB now; these list all the GPUs: US-KS-2" in cloud.said
