from otelwp_agent.model.ledgers import Ledgers
from otelwp_agent.model.receipt import Outcome


def test_there_is_one_account_for_each_pipeline_receiver_and_tenant():
    ledgers = Ledgers()
    keys = [("traces", "otlp", ""), ("traces", "otlp", "shop"), ("traces", "zipkin", ""), ("logs", "otlp", "")]
    accounts = [ledgers.get(*key) for key in keys]
    assert [account.key for account in accounts] == keys
    assert [ledgers.get(*key) for key in keys] == accounts, "the same ones again"
    assert list(ledgers) == accounts
    accounts[0].accepted = 5
    accounts[0].settle(Outcome.DROPPED, 2, "queue_full")
    assert [account.in_flight for account in ledgers] == [3, 0, 0, 0]


def test_who_has_the_accounts_of_a_pipeline_sees_those_that_are_opened_later():
    ledgers = Ledgers()
    accounts = ledgers.of_pipeline("traces")
    assert accounts == {}
    opened = ledgers.get("traces", "otlp", "shop")
    assert accounts == {("otlp", "shop"): opened}
    assert ledgers.of_pipeline("traces") is accounts
