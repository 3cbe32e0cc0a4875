import pytest

from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import private_pem, public_text
from otelwp_agent.model.deliveries import Deliveries
from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome
from otelwp_agent.statements.chain import verify_chains
from otelwp_agent.statements.recorder import StatementRecorder
from otelwp_agent.statements.store import StatementStore, StatementStoreError

T0 = 7200.0


@pytest.fixture
def begin(tmp_path, key):
    """Return what starts a run; a run that is not stopped was killed."""
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    stores = []

    async def start(now, ledgers=None):
        stores[-1:] and stores[-1].close()
        stores.append(StatementStore(tmp_path / "statements.db"))
        recorder = StatementRecorder(
            stores[-1], tmp_path / "key.pem", "edge", ledgers or Ledgers(), Deliveries(), 30 * 86400.0
        )
        await recorder.open(now)
        return recorder

    yield start
    stores[-1].close()


def use(recorder, accepted, delivered, tenant="shop"):
    ledger = recorder._ledgers.get("traces", "otlp", tenant)
    ledger.accepted += accepted
    ledger.settle(Outcome.DELIVERED, delivered, "")


def texts(recorder, tenant="shop"):
    return [(f"statement {each.sequence}", each.text) for each in recorder._store.statements(tenant, 0, 100)]


async def test_each_hour_has_a_statement_of_each_tenant_and_all_verify(begin, keys, key):
    recorder = await begin(T0)
    assert recorder.key_id == key_id(public_text(key))
    for hour in range(5):
        use(recorder, 10, 9)
        use(recorder, 3, 3, "other")
        await recorder.checkpoint(T0 + hour * 3600 + 1800)
        await recorder.checkpoint(T0 + (hour + 1) * 3600)
    report = verify_chains(texts(recorder) + texts(recorder, "other"), keys, last=5, until=T0 + 5 * 3600)
    assert report.problems == []
    assert [each.numbers for each in report.chains] == [[1, 2, 3, 4, 5]] * 2
    assert report.chains[1].last.pipelines["traces"].closing == 5
    assert (recorder.made, recorder.tenants) == (10, 2)


async def test_there_is_one_statement_an_hour(begin):
    recorder = await begin(T0 + 1000)
    for now, made in ((3599, 0), (3600, 1), (3700, 1), (7199, 1), (7200, 2), (18000, 3), (18001, 3)):
        use(recorder, 1, 1)
        await recorder.checkpoint(T0 + now)
        assert recorder.made == made


@pytest.mark.parametrize("journal", [True, False])
async def test_kills_at_any_time_leave_a_valid_chain_that_states_them(begin, keys, journal):
    ledgers = Ledgers()
    accepted = 0
    for life in range(6):
        now = T0 + life * 2000
        recorder = await begin(now, ledgers if journal else Ledgers())
        use(recorder, 10, 8)
        accepted += 10
        await recorder.checkpoint(now + 500)
        use(recorder, 5, 5)
        accepted += 5
    recorder = await begin(T0 + 14000, ledgers if journal else Ledgers())
    await recorder.checkpoint(T0 + 14400, stopped=True)
    report = verify_chains(texts(recorder), keys)
    assert report.problems == []
    (chain,) = report.chains
    statements = [each.statement for each in chain.statements]
    assert sum(len(each.interruptions) for each in statements) == 6
    figures = [each.pipelines["traces"] for each in statements]
    if journal:
        assert sum(each.accepted for each in figures) == accepted
        assert (sum(each.written_off for each in figures), figures[-1].closing) == (0, 12)
    else:
        assert sum(each.accepted for each in figures) == 60, "what was collected before each kill"
        assert (sum(each.written_off for each in figures), figures[-1].closing) == (12, 0)


async def test_a_checkpoint_that_cannot_be_written_is_in_the_next_one(begin, keys, monkeypatch):
    recorder = await begin(T0)
    use(recorder, 10, 10)
    save = recorder._store.save

    def broken(*_, **__):
        raise StatementStoreError("the disk is full")

    monkeypatch.setattr(recorder._store, "save", broken)
    with pytest.raises(StatementStoreError):
        await recorder.checkpoint(T0 + 3600)
    with pytest.raises(StatementStoreError):
        await recorder.checkpoint(T0 + 3660)
    assert texts(recorder) == []
    monkeypatch.setattr(recorder._store, "save", save)
    use(recorder, 1, 1)
    await recorder.checkpoint(T0 + 3720)
    await recorder.checkpoint(T0 + 7200)
    report = verify_chains(texts(recorder), keys, last=2)
    assert report.problems == []
    assert sum(each.statement.pipelines["traces"].accepted for each in report.chains[0].statements) == 11


@pytest.mark.parametrize("content", [None, b"no key"])
def test_a_key_that_cannot_be_read_is_an_error(tmp_path, content):
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read the key file" if content is None else "not an Ed25519 private"):
        StatementRecorder(StatementStore(tmp_path / "s.db"), path, "edge", Ledgers(), Deliveries(), 1.0)


async def test_the_next_checkpoint_is_not_behind_the_end_of_the_hour(begin):
    recorder = await begin(T0)
    assert recorder.wait(T0, 60.0) == 60.0
    assert recorder.wait(T0 + 3590, 60.0) == pytest.approx(10.001)
