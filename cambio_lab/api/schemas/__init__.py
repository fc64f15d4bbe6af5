"""Every body of the API as a pydantic model, the one source of ``openapi.yaml`` and ``asyncapi.yaml``.

``scripts/describe_api.py`` writes both, and the front end's ``schema.ts``. What comes in is checked with these models;
what goes out is compared with the descriptions in tests. Import them after the start hook has, off the event loop:
pydantic takes a tenth of a second.
"""
