"""Networks: encoder, pooling over slices, heads, momentum."""
