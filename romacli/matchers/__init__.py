"""Networks become matchers behind one seam: images are described once, pairs are matched in batches."""
