"""The page: `build_demo(pipeline)` builds it, `main()` serves it.

One file for each part that a visitor sees: pictures (photo and references), options (preset and settings), action
(Enlarge and Cancel), masks, results, downloads. page lays them out and says what happens between them; demo adds the
examples and the API. messages: what the page says. components: pictures as Gradio components, with the HTML, CSS and
JavaScript in `assets`. theme: colours. endpoints: the named API. tools: the same for MCP. serve: the server.
"""
