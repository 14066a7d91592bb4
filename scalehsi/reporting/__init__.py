"""What `scalehsi.report` and `scalehsi.plots` are made of: the digest of a result, marks, drawings, words and page."""
