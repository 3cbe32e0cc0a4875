import pytest

from otelwp_agent.transport.http_messages import Head, Request, Response, text_error


@pytest.mark.parametrize(
    ("target", "path", "query"), [("/v1/traces", "/v1/traces", ""), ("/a?b=c?d", "/a", "b=c?d"), ("*", "*", "")]
)
def test_a_target_is_path_and_query(target, path, query):
    request = Request(Head("GET", target, {}))
    assert (request.method, request.path, request.query) == ("GET", path, query)


@pytest.mark.parametrize(
    ("header", "media_type"),
    [
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        (" application/x-protobuf ", "application/x-protobuf"),
        ("", ""),
    ],
)
def test_a_media_type_has_no_parameters(header, media_type):
    assert Head("POST", "/", {"content-type": header}).media_type == media_type


def test_an_encoding_is_as_the_client_wrote_it():
    assert Head("POST", "/", {"content-encoding": " GZip "}).encoding == "GZip"
    assert Head("POST", "/", {}).encoding == ""


def test_an_error_in_text_ends_its_line():
    response = text_error(405, "use POST", (("Allow", "POST"),))
    assert isinstance(response, Response)
    assert response.status == 405
    assert response.body.decode().strip() == "use POST"
