"""The page of `kneessl serve`: a store, a worker, a guard, a REST interface, and a page in plain JavaScript."""
