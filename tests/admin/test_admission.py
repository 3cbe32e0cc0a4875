WRONG = "wpo_op_" + "a" * 16


async def test_failures_are_counted_and_ban_the_address(api):
    for _ in range(3):
        answer = await api.call("GET", "/me", by=WRONG)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert api.failures == 3
    banned = await api.call("GET", "/me")
    assert banned.status == 429
    assert banned.headers["Retry-After"] == "61"
    api.now = 60.0
    assert (await api.call("GET", "/me")).status == 200


async def test_all_failures_look_the_same(api):
    key = await api.key("acme", "ops:read")
    last = "b" if key[20] != "b" else "c"
    credentials = ["", "nonsense", WRONG, key[:-1], key[:20] + last + key[21:], key.replace("wpo_live", "wpo_op")]
    seen = set()
    for credential in credentials:
        api.now += 1000.0
        answer = await api.call("GET", "/me", by=credential, x_request_id="r")
        seen.add((answer.status, answer.body))
    assert len(seen) == 1
    assert next(iter(seen))[0] == 401


async def test_paths_are_hidden_without_authentication(api):
    assert (await api.raw("GET", "/api/v1/nothing")).status == 401
