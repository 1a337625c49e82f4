"""The page of `kneessl serve`: a store, a worker, access control, a REST interface, and a page in plain JavaScript.

May import any package above it. Begin with `app.py`.
"""
