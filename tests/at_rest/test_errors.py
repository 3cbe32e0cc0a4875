from otelwp_agent.at_rest.errors import FileKeyError


def test_the_message_names_the_file_its_keys_and_those_that_are_configured():
    assert str(FileKeyError("F", ["a"], ["b", "c"])) == (
        "F is encrypted; it needs key a, and the configured keys are b, c: give the key with which it was written"
    )
