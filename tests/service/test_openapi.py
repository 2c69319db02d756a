"""The OpenAPI page: requests that are made up from it find no fault of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytest.importorskip("fastapi", reason="the extra web is not installed")

import schemathesis
from hypothesis import HealthCheck, given, settings
from reference import lively_ofa
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from service.client import FIELDS, served

from ofa_core import GenerationOptions

#: Requests made up for each address, those that keep to the page and those that do not.
EXAMPLES = 25
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GenerationOptions, "max_length", lambda *_: 6)
        with served(lively_ofa(), max_bytes=200_000) as client:
            client.get("/health").raise_for_status()  # which waits until it answers
            yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json", timeout=60)


def test_what_is_made_up_finds_no_fault(page: Any) -> None:
    """Without schemathesis' own plugin, which relies on inner parts of pytest."""
    operations = [found.ok() for found in page.get_all_operations()]
    assert {f"/v1/{task}" for task in FIELDS} <= {operation.path for operation in operations}
    for operation in operations:
        kinds = operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE)

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=kinds)
        def asked(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60)

        asked()
