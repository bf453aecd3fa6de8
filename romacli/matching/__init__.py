"""Networks become matchers behind one seam. Knows no stores, folders or threads."""
