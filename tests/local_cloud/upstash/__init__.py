"""A local server that speaks Upstash's Redis REST protocol over a real Redis-compatible engine."""
