import pytest
import structlog

from otelwp_agent.errors import ConsumeError, MalformedError
from otelwp_agent.transport.documents import MAX_DOCUMENT, Documents
from tests.kit.key_sets import Publisher


async def test_a_document_is_fetched_within_limits():
    documents = Documents("", 1.0, name="test", log=structlog.get_logger())
    async with Publisher("x" * MAX_DOCUMENT) as publisher:
        await documents.prepare(publisher.url)
        assert await documents.get(publisher.url) == b"x" * MAX_DOCUMENT
        publisher.text += "x"
        with pytest.raises(MalformedError, match="larger than"):
            await documents.get(publisher.url)
        for status in (204, 301, 404, 500):
            publisher.status = status
            with pytest.raises(ConsumeError):
                await documents.get(publisher.url)
        await documents.aclose()
