"""What the page, the endpoints and the MCP tools share. Gradio is not imported here.

uploads: pictures that visitors give, checked by their header. session: what one visitor gave and chose.
call: one call of the pipeline as files and settings. workers: threads that can be stopped. run: a call in one of them.
work: what is computed, here. elsewhere: the same in a process of its own.
clock: how far a run is. runner: one model that serves many visitors. result: what is kept of a run.
preview: a part of a result before the whole. batch: several photos with the same references. history: earlier results.
examples: the shipped examples and their results. temporary: where files lie until they are deleted.
"""
