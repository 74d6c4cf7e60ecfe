"""Tables and files of a results folder -> figures and one HTML page; the state of a run; its cost before it starts."""
