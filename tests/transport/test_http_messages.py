from otelwp_agent.transport.http_messages import Head, Request, Response, text_error


def test_a_head_takes_the_target_and_the_content_type_apart():
    head = Head(
        "GET", "/a/b?c=d&e=?", {"content-type": "Application/JSON; charset=utf-8", "content-encoding": " gzip "}
    )
    request = Request(head, b"body", "192.0.2.1")
    assert (request.method, request.path, request.query) == ("GET", "/a/b", "c=d&e=?")
    assert (head.media_type, head.encoding, request.headers) == ("application/json", "gzip", head.headers)
    assert Head("GET", "/", {}).media_type == ""


def test_a_response_is_laid_out_once():
    response = Response(200, b"yes", "text/plain", (("X-A", "1"),))
    assert (response.start, response.rest) == (
        b"HTTP/1.1 200 OK\r\n",
        b"Content-Type: text/plain\r\nX-A: 1\r\nContent-Length: 3\r\n",
    )
    assert Response(299).start == b"HTTP/1.1 299 \r\n"


def test_errors_for_people_end_with_a_line_break():
    assert text_error(404, "nothing here").body == b"nothing here\n"


def test_the_bytes_of_a_response_are_joined_once_for_each_prefix():
    response = Response(200, b"body", "text/plain")
    first, second = b"Date: 1\r\n", b"Date: 2\r\n"
    assert response.message(b"").startswith(b"HTTP/1.1 200 OK\r\nContent-Type")
    message = response.message(first)
    assert message == (b"HTTP/1.1 200 OK\r\nDate: 1\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody")
    assert response.message(first) is message
    assert b"Date: 2" in response.message(second)
    assert response.message(first) == message
