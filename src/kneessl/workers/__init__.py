"""One executor for work in many pieces: this process, processes of this machine, or the workers of a Dask cluster.

May import only what lies in no package. Begin with `executor.py`.
"""
