"""Networks: encoders, pooling over slices, heads, moving average, frozen features, fast prediction on CPUs.

May import only `exams` and `views`. Begin with `encoder.py`.
"""
