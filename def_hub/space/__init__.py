"""The browser interface: `build_demo(pipeline)` gives it, `main()` serves it.

uploads: what visitors may give, checked from the header. run: one call of the pipeline, live and cancellable. clock:
how far it is. outcome: what is kept of it. viewer: pictures, sharp at 100 %, and drawing over them; style: how that
looks. form: the left half of the page, panels: the right; page: both, runs and examples.
endpoints: the named API. shipped: the examples.
temporary: where files lie meanwhile.
"""
