"""The operations of the batch handler over the local Redis, with RunPod faked."""

from dataclasses import dataclass

from handlers.catalog import CARDS
from shared.adapters.payloads import TieredPayloads
from shared.adapters.redis_monitor import RedisMonitor
from shared.adapters.redis_uploads import RedisUploads
from shared.core.repair import Patience
from shared.core.routing import DEFAULT_STAGES, Router
from shared.flow.caretaker import Caretaker
from shared.flow.feeder import Feeder
from shared.flow.observe import Observer
from shared.flow.operations import Operations
from shared.flow.results import Results
from shared.flow.submission import Limits, Submitter
from shared.flow.uploads import Uploader
from tests.contract.state import ENDPOINTS, Store
from tests.fakes import FakeJobs

PAGE_BYTES = 4000


@dataclass(frozen=True)
class Service:
    store: Store
    payloads: TieredPayloads
    jobs: FakeJobs
    feeder: Feeder
    operations: Operations


def build(
    store: Store, limits: Limits, jobs: FakeJobs | None = None, payloads: TieredPayloads | None = None
) -> Service:
    payloads = payloads or TieredPayloads(store.redis, None, 256 * 1024)
    jobs = jobs or FakeJobs()
    cards = {card.name: card for card in CARDS}
    endpoints = {endpoint.model: endpoint for endpoint in ENDPOINTS}
    feeder = Feeder(store.queue, store.repairs, jobs, endpoints, cards, lambda batch: None)
    caretaker = Caretaker(
        store.batches, store.repairs, store.runs, jobs, payloads, feeder, cards, endpoints, Patience()
    )
    submitter = Submitter(store.batches, payloads, Router(CARDS, DEFAULT_STAGES), limits, {})
    uploads = RedisUploads(store.redis, limits.max_requests, limits.max_batch_bytes, limits.upload_ms)
    operations = Operations(
        store.batches,
        payloads,
        submitter,
        Uploader(uploads, store.batches, payloads, submitter, limits),
        Results(store.batches, payloads, PAGE_BYTES),
        feeder,
        caretaker,
        Observer(RedisMonitor(store.redis, ENDPOINTS), payloads, jobs, ENDPOINTS),
    )
    return Service(store, payloads, jobs, feeder, operations)
