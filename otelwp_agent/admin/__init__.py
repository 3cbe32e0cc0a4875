"""The admin API: one HTTP application for operators and tenants, without knowledge of the extension that serves it.

An operation is declared once (`operation.ApiOperation`): method, path, models of query, body and answer, who may call
it and its handler. The dispatcher, the OpenAPI document and the tests read these declarations. `resources` has the
operations on the control store; other parts of the agent mount theirs on `mounting.AdminRoutes`.

Needs the extra `control` (`pip install otelwp-agent[control]`).
"""
