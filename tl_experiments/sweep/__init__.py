"""A sweep as one object: planned before it starts, isolated while it runs, resumed after any death, then compared."""
