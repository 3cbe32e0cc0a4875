from otelwp_agent.config.blocks import Cors
from otelwp_agent.transport.http_cors import CorsRules
from otelwp_agent.transport.http_messages import Route
from tests.kit.http_site import OK, Site, post


def test_without_settings_there_are_no_headers():
    for settings in (None, Cors()):
        rules = CorsRules(settings)
        assert rules.headers({"origin": "https://a.example"}) == b""
        assert rules.headers({"origin": ""}) == b""


def test_headers_of_a_preflight_may_be_any():
    rules = CorsRules(Cors(allowed_origins=["*"], allowed_headers=["*"]))
    answer = dict(rules.preflight({"access-control-request-headers": "x-a, x-b"}, Route(lambda _: OK, ("GET", "PUT"))))
    assert answer == {"Access-Control-Allow-Methods": "GET, PUT", "Access-Control-Allow-Headers": "x-a, x-b"}


async def test_cors():
    cors = Cors(allowed_origins=["https://*.shop.example"], allowed_headers=["X-Api"], max_age=60)
    async with Site(cors=cors.model_dump()) as site:
        client = await site.connect()
        client.send(b"OPTIONS /v1/traces HTTP/1.1\r\nOrigin: https://a.shop.example\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["access-control-allow-origin"]) == (204, "https://a.shop.example")
        assert headers["access-control-max-age"] == "60"
        assert "X-Api" in headers["access-control-allow-headers"]
        for _ in range(2):
            client.send(post(extra="Origin: https://a.shop.example\r\n"))
            assert (await client.answer())[1]["access-control-allow-origin"] == "https://a.shop.example"
        client.send(post(extra="Origin: https://evil.example\r\n"))
        assert "access-control-allow-origin" not in (await client.answer())[1]
        await client.close()
